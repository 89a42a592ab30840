package emulator

import (
	"encoding/binary"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	ics "github.com/arran4/golang-ical"
	"github.com/teambition/rrule-go"
)

// icsZone is a zone as Graph would report it.
type icsZone struct {
	name string
	loc  *time.Location
}

// zone finds a zone by its TZID: a Windows or IANA name, also behind the slashes of other programs, else what the file
// says of it, which has no name at Microsoft.
func (f icsFile) zone(id string) (icsZone, error) {
	parts := strings.Split(strings.Trim(id, "/"), "/")
	for i := range parts {
		name := strings.Join(parts[i:], "/")
		if loc, err := location(name); err == nil && name != "" {
			return icsZone{name, loc}, nil
		}
	}
	if z, ok := f.zones[id]; ok {
		return z, nil
	}
	return icsZone{}, fmt.Errorf("the time zone %q is not known, and the file does not tell its rules", id)
}

// zonesOf reads the VTIMEZONEs of a calendar.
func zonesOf(cal *ics.Calendar) map[string]icsZone {
	zones := map[string]icsZone{}
	for _, z := range cal.Timezones() {
		if id := z.GetProperty(ics.ComponentPropertyTzid); id != nil {
			if loc := locationOf(z); loc != nil {
				zones[id.Value] = icsZone{customZone, loc}
			}
		}
	}
	return zones
}

// observance is standard or summer time, as it begins each year.
type observance struct {
	seconds int    // east of UTC
	begins  string // as POSIX writes it; empty: at no time of the year
	since   string // DTSTART
}

// locationOf makes a location of the newest rules of a VTIMEZONE; nil: it tells none.
func locationOf(z *ics.VTimezone) *time.Location {
	var standard, daylight *observance
	for _, c := range z.SubComponents() {
		switch c := c.(type) {
		case *ics.Standard:
			standard = newer(standard, observed(&c.ComponentBase))
		case *ics.Daylight:
			daylight = newer(daylight, observed(&c.ComponentBase))
		}
	}
	switch {
	case standard == nil && daylight == nil:
		return nil
	case standard == nil:
		return time.FixedZone("", daylight.seconds)
	case daylight == nil || daylight.begins == "" || standard.begins == "":
		return time.FixedZone("", standard.seconds)
	}
	rules := "STD" + posixOffset(standard.seconds) + "DST" + posixOffset(daylight.seconds) + "," + daylight.begins + "," + standard.begins
	loc, err := time.LoadLocationFromTZData("", tzif(rules, standard.seconds))
	if err != nil {
		return time.FixedZone("", standard.seconds)
	}
	return loc
}

func newer(a, b *observance) *observance {
	if a == nil || b != nil && b.since >= a.since {
		return b
	}
	return a
}

var icsOffset = regexp.MustCompile(`^([+-])(\d\d)(\d\d)(\d\d)?$`)

// observed reads a STANDARD or DAYLIGHT; nil: it has no offset.
func observed(c *ics.ComponentBase) *observance {
	text := func(name string) string {
		if p := c.GetProperty(ics.ComponentProperty(name)); p != nil {
			return strings.TrimSpace(p.Value)
		}
		return ""
	}
	parts := icsOffset.FindStringSubmatch(text("TZOFFSETTO"))
	if parts == nil {
		return nil
	}
	o := &observance{since: text("DTSTART")}
	for i, unit := range []int{3600, 60, 1} {
		n, err := strconv.Atoi(parts[i+2])
		if err == nil {
			o.seconds += n * unit
		}
	}
	if parts[1] == "-" {
		o.seconds = -o.seconds
	}
	o.begins = posixRule(text("RRULE"), o.since)
	return o
}

// posixRule writes when something begins each year as POSIX does, for example M3.5.0/02:00:00 for the last Sunday of
// March. Empty: the rule is not of that kind.
func posixRule(rule, since string) string {
	at, err := time.Parse("20060102T150405", since)
	if err != nil {
		return ""
	}
	o, err := rrule.StrToROption(rule)
	if err != nil || o.Freq != rrule.YEARLY || len(o.Bymonth) != 1 || len(o.Byweekday) != 1 {
		return ""
	}
	month, week := o.Bymonth[0], o.Byweekday[0].N()
	switch {
	case week == -1:
		week = 5
	case week == 0 && len(o.Bymonthday) > 0: // the first such weekday from a day on
		if week = (o.Bymonthday[0]-1)/7 + 1; o.Bymonthday[0] > 22 { // 25 to 31 is the last one
			week = 5
		}
	}
	if month < 1 || month > 12 || week < 1 || week > 5 {
		return ""
	}
	return fmt.Sprintf("M%d.%d.%d/%s", month, week, (o.Byweekday[0].Day()+1)%7, at.Format("15:04:05"))
}

// posixOffset writes an offset as POSIX does: west of UTC is positive.
func posixOffset(seconds int) string {
	sign := "-"
	if seconds < 0 {
		sign, seconds = "+", -seconds
	}
	return fmt.Sprintf("%s%02d:%02d:%02d", sign, seconds/3600, seconds/60%60, seconds%60)
}

// tzif is a time zone file (RFC 9636) that has nothing but rules: package time reads them from a file only. One change, to
// standard time in the year 1, makes it look at them.
func tzif(rules string, seconds int) []byte {
	header := func(b []byte, times, types, chars uint32) []byte {
		b = append(b, "TZif2"...)
		b = append(b, make([]byte, 15+3*4)...) // reserved; no UTC indicators, standard indicators or leap seconds
		for _, n := range []uint32{times, types, chars} {
			b = binary.BigEndian.AppendUint32(b, n)
		}
		return b
	}
	b := header(header(nil, 0, 0, 0), 1, 1, 4)
	yearOne := time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC).Unix()
	b = binary.BigEndian.AppendUint64(b, uint64(yearOne))
	b = append(b, 0) // the change's type
	b = binary.BigEndian.AppendUint32(b, uint32(int32(seconds)))
	b = append(b, 0, 0) // not summer time; the name's place
	b = append(b, "STD\x00"...)
	return append(b, "\n"+rules+"\n"...)
}
