package event_test

import (
	"strings"
	"testing"
	"time"

	"github.com/yaegashi/wtz.go"

	"github.com/triggerd/triggerd/internal/event"
)

func TestZoneNames(t *testing.T) {
	tests := []struct{ name, in, iana, windows string }{
		{"a Windows name", "W. Europe Standard Time", "Europe/Berlin", "W. Europe Standard Time"},
		{"a Windows name in another case", "w. europe STANDARD time", "Europe/Berlin", "W. Europe Standard Time"},
		{"an IANA name", "Europe/Berlin", "Europe/Berlin", "W. Europe Standard Time"},
		{"an IANA name that does not stand for its Windows zone", "Europe/Vienna", "Europe/Vienna", "W. Europe Standard Time"},
		{"an IANA name in another case is none", "europe/berlin", "", ""},
		{"UTC is a name in both worlds", "UTC", "UTC", "UTC"},
		{"utc", "utc", "UTC", "UTC"},
		{"the zone that UTC is a name of", "Etc/UTC", "Etc/UTC", "UTC"},
		{"CLDR's old spelling is told as IANA's new one", "India Standard Time", "Asia/Kolkata", "India Standard Time"},
		{"IANA's new spelling", "Asia/Kolkata", "Asia/Kolkata", "India Standard Time"},
		{"IANA's old spelling", "Asia/Calcutta", "Asia/Calcutta", "India Standard Time"},
		{"Kyiv", "FLE Standard Time", "Europe/Kyiv", "FLE Standard Time"},
		{"a zone with half an hour of summer time", "Lord Howe Standard Time", "Australia/Lord_Howe", "Lord Howe Standard Time"},
		{"of 2016", "Saratov Standard Time", "Europe/Saratov", "Saratov Standard Time"},
		{"of 2016 too", "Omsk Standard Time", "Asia/Omsk", "Omsk Standard Time"},
		{"of 2017", "Magallanes Standard Time", "America/Punta_Arenas", "Magallanes Standard Time"},
		{"of 2018", "Sao Tome Standard Time", "Africa/Sao_Tome", "Sao Tome Standard Time"},
		{"of 2019", "Qyzylorda Standard Time", "Asia/Qyzylorda", "Qyzylorda Standard Time"},
		{"of 2020", "Volgograd Standard Time", "Europe/Volgograd", "Volgograd Standard Time"},
		{"of 2020 too", "Yukon Standard Time", "America/Whitehorse", "Yukon Standard Time"},
		{"of 2021", "South Sudan Standard Time", "Africa/Juba", "South Sudan Standard Time"},
		{"of 2026", "British Columbia Standard Time", "America/Vancouver", "British Columbia Standard Time"},
		{"a Windows zone that came to stand for another place", "Central Asia Standard Time", "Asia/Bishkek", "Central Asia Standard Time"},
		{"a place that came into another Windows zone", "Asia/Almaty", "Asia/Almaty", "West Asia Standard Time"},
		{"a place that Windows does not know", "Antarctica/Troll", "Antarctica/Troll", ""},
		{"Exchange's zone of its own making", "tzone://Microsoft/Custom", "", ""},
		{"Windows' word for it", "Customized Time Zone", "", ""},
		{"nothing", "", "", ""},
		{"the machine's own zone", "Local", "", ""},
		{"a folder of zones", "Europe", "", ""},
		{"a path", "../../etc/passwd", "", ""},
		{"an absolute path", "/etc/localtime", "", ""},
		{"a byte that no path has", "Europe/Berlin\x00", "", ""},
		{"a placeholder of the documentation", "originalStartTimeZone-value", "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if iana, windows := event.ZoneNames(tt.in); iana != tt.iana || windows != tt.windows {
				t.Errorf("ZoneNames(%q) = %q, %q, want %q, %q", tt.in, iana, windows, tt.iana, tt.windows)
			}
			loc, err := event.LoadZone(tt.in)
			if tt.iana == "" {
				if err == nil || loc != nil {
					t.Errorf("LoadZone(%q) = %v, want an error", tt.in, loc)
				}
				return
			}
			if err != nil || loc.String() != tt.iana {
				t.Errorf("LoadZone(%q) = %v, %v, want %s", tt.in, loc, err, tt.iana)
			}
		})
	}
}

// Both names of a zone lead to the same zone, whichever the other was found by.
func TestEveryWindowsZoneCanBeLoaded(t *testing.T) {
	for name := range wtz.WindowsToUnixMap {
		iana, windows := event.ZoneNames(name)
		if windows != name || !strings.Contains(iana, "/") && iana != "UTC" {
			t.Errorf("ZoneNames(%q) = %q, %q", name, iana, windows)
		}
		if again, back := event.ZoneNames(iana); again != iana || back != name {
			t.Errorf("%q is %q, and that is %q and %q", name, iana, again, back)
		}
		loc, err := event.LoadZone(strings.ToUpper(name))
		if err != nil {
			t.Error(err)
		} else if same, err := event.LoadZone(iana); err != nil || same != loc {
			t.Errorf("%q is %v, but %q is %v, %v", name, loc, iana, same, err)
		}
	}
	for iana := range wtz.UnixToWindowsMap {
		if got, windows := event.ZoneNames(iana); got != iana || windows == "" {
			t.Errorf("ZoneNames(%q) = %q, %q", iana, got, windows)
		}
	}
}

func TestZonesKnowTheirSummerTime(t *testing.T) {
	tests := []struct{ zone, winter, summer string }{
		{"Europe/Berlin", "+01:00", "+02:00"},
		{"Eastern Standard Time", "-05:00", "-04:00"},
		{"Asia/Kolkata", "+05:30", "+05:30"},
		{"Lord Howe Standard Time", "+11:00", "+10:30"},
	}
	for _, tt := range tests {
		loc, err := event.LoadZone(tt.zone)
		if err != nil {
			t.Fatal(err)
		}
		january, july := time.Date(2026, 1, 15, 12, 0, 0, 0, time.UTC).In(loc), time.Date(2026, 7, 15, 12, 0, 0, 0, time.UTC).In(loc)
		if january.Format("-07:00") != tt.winter || july.Format("-07:00") != tt.summer {
			t.Errorf("%s is %s in January and %s in July", tt.zone, january.Format("-07:00"), july.Format("-07:00"))
		}
	}
}
