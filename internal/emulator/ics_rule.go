package emulator

import (
	"errors"
	"regexp"
	"strings"
	"time"

	"github.com/teambition/rrule-go"
)

var errRule = errors.New("Outlook has no such recurrence")

// recurrenceOf reads a RRULE of a meeting as the pattern and range that Outlook has for it.
func recurrenceOf(text string, m Meeting) (r Recurrence, err error) {
	loc := m.loc
	if m.AllDay {
		loc = time.UTC
	}
	o, err := rrule.StrToROptionInLocation(text, loc)
	if err != nil {
		return r, err
	}
	if len(o.Byhour)+len(o.Byminute)+len(o.Bysecond)+len(o.Byyearday)+len(o.Byweekno)+len(o.Byeaster) > 0 ||
		len(o.Bymonth) > 1 || len(o.Bymonthday) > 1 || len(o.Bysetpos) > 1 {
		return r, errRule
	}
	r = Recurrence{Interval: o.Interval, FirstDayOfWeek: weekdayOf(o.Wkst)} // without WKST it is Monday, unlike Outlook's own
	if err := r.pattern(o); err != nil {
		return r, err
	}
	switch {
	case o.Count > 0:
		r.RangeType, r.Count = "numbered", o.Count
	case !o.Until.IsZero():
		r.RangeType, r.EndDate = "endDate", dayOf(o.Until.In(loc)).midnight()
		if !untilDate.MatchString(strings.ToUpper(text)) {
			r.EndDate = lastDate(o.Until.In(loc), m.Start.In(loc))
		}
	}
	return r, nil
}

// untilDate finds an UNTIL that is a date.
var untilDate = regexp.MustCompile(`UNTIL=\d{8}(;|$)`)

// lastDate is the last date on which what begins at start's time of day begins no later than until.
func lastDate(until, start time.Time) time.Time {
	d := dayOf(until)
	if timeOfDay(until) < timeOfDay(start) {
		d--
	}
	return d.midnight()
}

// timeOfDay is what the clock of t shows.
func timeOfDay(t time.Time) time.Duration { return floating(t).Sub(dayOf(t).midnight()) }

func weekdayOf(d rrule.Weekday) string { return weekdays[(d.Day()+1)%7] }

// pattern reads the part of a rule that is not its range.
func (r *Recurrence) pattern(o *rrule.ROption) error {
	nth := 0 // of the weekdays: all the same
	for i, d := range o.Byweekday {
		if i > 0 && d.N() != nth {
			return errRule
		}
		nth = d.N()
		r.DaysOfWeek = append(r.DaysOfWeek, weekdayOf(d))
	}
	if nth != 0 && len(o.Byweekday) > 1 { // the first Monday and the first Tuesday are two
		return errRule
	}
	if len(o.Bysetpos) == 1 {
		if nth != 0 {
			return errRule
		}
		nth = o.Bysetpos[0]
	}
	plain := nth == 0 && len(o.Bymonthday) == 0
	switch {
	case o.Freq == rrule.DAILY && plain && len(o.Bymonth) == 0 && len(r.DaysOfWeek) == 0:
		r.Type = "daily"
	case o.Freq == rrule.DAILY && plain && len(o.Bymonth) == 0 && r.Interval <= 1, o.Freq == rrule.WEEKLY && plain && len(o.Bymonth) == 0:
		r.Type = "weekly"
	case o.Freq == rrule.MONTHLY && len(o.Bymonth) == 0:
		return r.inMonth("Monthly", nth, o.Bymonthday)
	case o.Freq == rrule.YEARLY:
		if len(o.Bymonth) == 1 {
			r.Month = o.Bymonth[0]
		} else if len(o.Bymonthday) > 0 || len(r.DaysOfWeek) > 0 {
			return errRule
		}
		return r.inMonth("Yearly", nth, o.Bymonthday)
	default:
		return errRule
	}
	return nil
}

// inMonth reads which day of a month it is: a number, the last, or the nth of some weekdays.
func (r *Recurrence) inMonth(period string, nth int, monthDay []int) error {
	switch {
	case len(r.DaysOfWeek) == 0 && nth == 0:
		r.Type = "absolute" + period
		if len(monthDay) == 1 {
			if r.DayOfMonth = monthDay[0]; r.DayOfMonth == -1 {
				r.DayOfMonth = 31 // the last day of every month
			}
		}
		if r.DayOfMonth < 0 {
			return errRule
		}
		return nil
	case len(r.DaysOfWeek) > 0 && len(monthDay) == 0 && (nth >= 1 && nth <= 4 || nth == -1):
		r.Type, r.Index = "relative"+period, "last"
		if nth > 0 {
			r.Index = indexes[nth-1]
		}
		return nil
	}
	return errRule
}
