package emulator

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// controlCalendar is a calendar as the control API shows it.
type controlCalendar struct {
	ID        string `json:"id"`
	Name      string `json:"name"`
	IsDefault bool   `json:"isDefaultCalendar"`
}

func (s *Server) controlCalendars(user string) ([]controlCalendar, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u, err := s.find(user)
	if err != nil {
		return nil, err
	}
	var out []controlCalendar
	for _, c := range u.calendars {
		out = append(out, controlCalendar{c.id, c.name, c.isDefault})
	}
	return out, nil
}

// controlCalendarArea serves what of /emulator/users/{user} is about calendars.
func (s *Server) controlCalendarArea(r *http.Request, user string, path []string) (any, error) {
	switch route := r.Method + " " + path[0]; {
	case route == "GET calendars" && len(path) == 1:
		return s.controlCalendars(user)
	case route == "POST calendars" && len(path) == 1:
		var in struct {
			Name string `json:"name"`
		}
		if err := decode(r, &in); err != nil {
			return nil, err
		}
		id, err := s.AddCalendar(user, in.Name)
		return idAnswer{id}, err
	case route == "PUT timeZone" && len(path) == 1:
		var in struct {
			TimeZone string `json:"timeZone"`
		}
		if err := decode(r, &in); err != nil {
			return nil, err
		}
		return done{true}, s.SetTimeZone(user, in.TimeZone)
	case route == "GET meetings" && len(path) == 1:
		return s.controlMeetings(r, user)
	case route == "POST meetings" && len(path) == 1:
		return s.controlMeet(r, user)
	case path[0] == "meetings" && len(path) > 1:
		return s.controlMeeting(r, user, path[1], path[2:])
	}
	return nil, errNoRoute
}

// controlMeetings lists the single meetings and series, or what takes place when a window is named.
func (s *Server) controlMeetings(r *http.Request, user string) (any, error) {
	q := r.URL.Query()
	if !q.Has("from") && !q.Has("until") {
		return orEmpty(s.Meetings(user)), nil
	}
	from, ok1 := parseTime(q.Get("from"))
	until, ok2 := parseTime(q.Get("until"))
	if !ok1 || !ok2 || until.Sub(from) > longestView {
		return nil, errors.New("from and until are times such as 2026-11-23T00:00:00Z, at most five years apart")
	}
	return orEmpty(s.Instances(user, q.Get("calendar"), from, until)), nil
}

// controlMeet adds a meeting of JSON, or all of an iCalendar file.
func (s *Server) controlMeet(r *http.Request, user string) (any, error) {
	if mediaType(r.Header.Get("Content-Type")) == "text/calendar" {
		n, err := s.ImportICS(user, r.Body)
		if n == 0 && err != nil {
			return nil, err
		}
		out := struct {
			Imported int      `json:"imported"`
			Problems []string `json:"problems"`
		}{n, []string{}}
		if err != nil {
			out.Problems = strings.Split(err.Error(), "\n")
		}
		return out, nil
	}
	var m Meeting
	if err := decode(r, &m); err != nil {
		return nil, err
	}
	id, err := s.AddMeeting(user, m)
	return idAnswer{id}, err
}

// controlMeeting changes a meeting, or with ?originalStart= one date of a series.
func (s *Server) controlMeeting(r *http.Request, user, id string, path []string) (any, error) {
	change, err := s.controlChange(r, user, path)
	if err != nil {
		return nil, err
	}
	if original := r.URL.Query().Get("originalStart"); original != "" {
		at, err := time.Parse(time.RFC3339, original)
		if err != nil {
			return nil, fmt.Errorf("originalStart: %w", err)
		}
		if change == nil {
			return done{true}, s.DeleteOccurrence(user, id, at)
		}
		return done{true}, s.changeByDate(user, id, at, change)
	}
	if change == nil {
		return done{true}, s.DeleteMeeting(user, id)
	}
	return done{true}, s.changeByID(user, id, change)
}

// controlChange reads what is to be done with a meeting; nil: it is to be deleted.
func (s *Server) controlChange(r *http.Request, user string, path []string) (edit, error) {
	switch route := r.Method + " " + strings.Join(path, "/"); route {
	case "DELETE ":
		return nil, nil
	case "PATCH ":
		var p MeetingPatch
		if err := decode(r, &p); err != nil {
			return nil, err
		}
		return p.apply, nil
	case "POST cancel":
		return cancel, nil
	case "POST respond":
		var in struct {
			Attendee string `json:"attendee"`
			Response string `json:"response"`
		}
		if err := decode(r, &in); err != nil {
			return nil, err
		}
		if in.Response == "" {
			return nil, errors.New("response is missing")
		}
		return s.respond(user, in.Attendee, in.Response), nil
	}
	return nil, errNoRoute
}
