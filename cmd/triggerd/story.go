package main

import (
	"fmt"
	"time"

	"github.com/triggerd/triggerd/internal/emulator"
	"github.com/triggerd/triggerd/internal/event"
)

// story is what happens in the demonstration.
type story struct {
	*demo
	began                   time.Time // in demoZone
	invoice, question       string    // ids of mails
	review, standup, weekly string    // ids of meetings
}

func newStory(d *demo) (*story, error) {
	zone, err := event.LoadZone(demoZone)
	if err != nil {
		return nil, err
	}
	return &story{demo: d, began: time.Now().In(zone)}, nil
}

// step is one thing that happens, so long after the one before.
type step struct {
	after time.Duration
	text  string
	do    func() error
}

const demoPause = 2 * time.Second

// grace and ada are people outside of the mailboxes; demoZone is where all of them work.
var (
	grace = emulator.Address{Name: "Grace Hopper", Address: "grace@example.com"}
	ada   = emulator.Address{Name: "Ada Lovelace", Address: "ada@example.com"}
)

const demoZone = "Europe/Berlin"

// steps are what happens, in order. Meetings that take place on other days begin at nine in the morning.
func (s *story) steps() []step {
	return []step{
		{0, "· mail arrives", func() (err error) {
			s.invoice, err = s.emu.Deliver(demoUser, sampleMail(0))
			return err
		}},
		{demoPause, "· mail arrives in the shared mailbox", func() (err error) {
			s.question, err = s.emu.Deliver(demoShared, sampleMail(1))
			return err
		}},
		{demoPause, "· somebody reads and flags it: one facet, one event", func() error {
			return s.emu.Update(demoShared, s.question, emulator.Patch{IsRead: new(true), Flag: new("flagged")})
		}},
		{demoPause, "↯ the next notification is lost on purpose; delta finds the mail within 5s", func() error {
			s.emu.SetFaults(func(f *emulator.Faults) { f.LoseNext = 1 })
			_, err := s.emu.Deliver(demoUser, sampleMail(2))
			return err
		}},
		{demoPause, "· Grace invites sales to a meeting: Graph notifies two to four times, and there is one event", s.invite},
		{demoPause, "· she moves it by an hour", func() error {
			return s.emu.UpdateMeeting(demoUser, s.review, emulator.MeetingPatch{Start: new(s.nine(1).Add(time.Hour))})
		}},
		{demoPause, "· sales accepts", func() error { return s.emu.Respond(demoUser, s.review, "", "accepted") }},
		{time.Second, "· the invoice is moved to Archive", func() error { return s.emu.Move(demoUser, s.invoice, "archive") }},
		{demoPause, fmt.Sprintf("· sales calls a meeting that starts in 20s; the watch wants to know %v before", demoLead), s.call},
		{demoPause, "· Ada accepts", func() error { return s.emu.Respond(demoUser, s.standup, ada.Address, "accepted") }},
		{demoPause, "· Grace cancels hers", func() error { return s.emu.CancelMeeting(demoUser, s.review) }},
		{demoPause, "· support begins a weekly series: one event for all of it", s.begin},
		{demoPause, "· next week it is a day later: that date alone", func() error {
			return s.emu.UpdateOccurrence(demoShared, s.weekly, s.nine(8), emulator.MeetingPatch{Start: new(s.nine(9))})
		}},
		{demoPause, "· the week after that it is called off", func() error { return s.emu.DeleteOccurrence(demoShared, s.weekly, s.nine(15)) }},
		{demoPause, "· an answer is sent", func() error {
			_, err := s.emu.Send(demoShared, emulator.Mail{Subject: "Re: Where is my order?"})
			return err
		}},
		{demoPause, "· the invoice is deleted for good", func() error { return s.emu.Delete(demoUser, s.invoice) }},
	}
}

func (s *story) invite() (err error) {
	s.review, err = s.emu.AddMeeting(demoUser, emulator.Meeting{
		Subject: "Review of the quarter", Location: "Room 7", TimeZone: demoZone, Start: s.nine(1), End: s.nine(1).Add(time.Hour), Organizer: grace,
		Attendees: []emulator.Attendee{{Address: emulator.Address{Name: "Sales", Address: demoUser}}},
	})
	return err
}

func (s *story) call() (err error) {
	start := time.Now().Add(20 * time.Second).Truncate(time.Second)
	s.standup, err = s.emu.AddMeeting(demoUser, emulator.Meeting{
		Subject: "Stand-up", TimeZone: demoZone, Start: start, End: start.Add(15 * time.Minute), Attendees: []emulator.Attendee{{Address: ada}},
	})
	return err
}

func (s *story) begin() (err error) {
	s.weekly, err = s.emu.AddMeeting(demoShared, emulator.Meeting{
		Subject: "Open questions", TimeZone: demoZone, Start: s.nine(1), End: s.nine(1).Add(30 * time.Minute), Recurrence: &emulator.Recurrence{Type: "weekly"},
	})
	return err
}

// nine is nine o'clock in so many days.
func (s *story) nine(days int) time.Time {
	y, m, d := s.began.Date()
	return time.Date(y, m, d+days, 9, 0, 0, 0, s.began.Location())
}
