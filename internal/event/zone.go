package event

import (
	"fmt"
	"strings"
	"sync"
	"time"
	_ "time/tzdata" // a static binary on a bare machine knows every zone too

	"github.com/yaegashi/wtz.go"
)

// newerWindows are the rows for the world (territory 001) of CLDR's windowsZones that wtz, made from CLDR 37, does not
// have or has otherwise. Source: CLDR 48.2, the last three CLDR's main branch of 2026-10-10.
var newerWindows = map[string]string{
	"Central Asia Standard Time":      "Asia/Bishkek",
	"Mountain Standard Time (Mexico)": "America/Mazatlan",
	"South Sudan Standard Time":       "Africa/Juba",
	"UTC":                             "UTC", // CLDR says Etc/UTC, its other name
	"Yukon Standard Time":             "America/Whitehorse",
	"Alberta Standard Time":           "America/Edmonton",
	"British Columbia Standard Time":  "America/Vancouver",
	"Manitoba Standard Time":          "America/Winnipeg",
}

// newerIANA are the zones that CLDR 48.2 gives to another Windows zone than wtz does, or wtz to none.
var newerIANA = map[string]string{
	"Africa/Juba":           "South Sudan Standard Time",
	"America/Chihuahua":     "Central Standard Time (Mexico)",
	"America/Ciudad_Juarez": "Mountain Standard Time",
	"America/Coyhaique":     "Magallanes Standard Time",
	"America/Danmarkshavn":  "Greenwich Standard Time",
	"America/Dawson":        "Yukon Standard Time",
	"America/Ojinaga":       "Central Standard Time",
	"America/Whitehorse":    "Yukon Standard Time",
	"Antarctica/Casey":      "Central Pacific Standard Time",
	"Antarctica/Macquarie":  "Tasmania Standard Time",
	"Asia/Almaty":           "West Asia Standard Time",
	"Asia/Qostanay":         "West Asia Standard Time",
	"UTC":                   "UTC",
}

// respelled are the zones that CLDR writes as it once began to, and IANA otherwise today. Source: _iana in CLDR 48.2,
// bcp47/timezone.
var respelled = map[string]string{
	"Africa/Asmera":         "Africa/Asmara",
	"America/Buenos_Aires":  "America/Argentina/Buenos_Aires",
	"America/Catamarca":     "America/Argentina/Catamarca",
	"America/Coral_Harbour": "America/Atikokan",
	"America/Cordoba":       "America/Argentina/Cordoba",
	"America/Godthab":       "America/Nuuk",
	"America/Indianapolis":  "America/Indiana/Indianapolis",
	"America/Jujuy":         "America/Argentina/Jujuy",
	"America/Louisville":    "America/Kentucky/Louisville",
	"America/Mendoza":       "America/Argentina/Mendoza",
	"Asia/Calcutta":         "Asia/Kolkata",
	"Asia/Katmandu":         "Asia/Kathmandu",
	"Asia/Rangoon":          "Asia/Yangon",
	"Asia/Saigon":           "Asia/Ho_Chi_Minh",
	"Atlantic/Faeroe":       "Atlantic/Faroe",
	"Europe/Kiev":           "Europe/Kyiv",
	"Pacific/Enderbury":     "Pacific/Kanton",
	"Pacific/Ponape":        "Pacific/Pohnpei",
	"Pacific/Truk":          "Pacific/Chuuk",
}

// zoneNames are the names of a zone in both worlds; one of them may be empty.
type zoneNames struct{ iana, windows string }

// zoneTable finds the names of a zone by its Windows name in lower case, and by its IANA name.
type zoneTable struct{ byWindows, byIANA map[string]zoneNames }

// zoneTables is made once and then only read.
var zoneTables = sync.OnceValue(func() zoneTable {
	t := zoneTable{byWindows: map[string]zoneNames{}, byIANA: map[string]zoneNames{}}
	for _, rows := range []map[string]string{wtz.UnixToWindowsMap, newerIANA} {
		for iana, windows := range rows {
			t.byIANA[iana] = zoneNames{iana, windows}
			if now := respelled[iana]; now != "" {
				t.byIANA[now] = zoneNames{now, windows}
			}
		}
	}
	for _, rows := range []map[string]string{wtz.WindowsToUnixMap, newerWindows} {
		for windows, iana := range rows {
			if now := respelled[iana]; now != "" {
				iana = now
			}
			t.byWindows[strings.ToLower(windows)] = zoneNames{iana, windows}
		}
	}
	return t
})

// ZoneNames returns both names of a zone that is known by either: the IANA name as it is given, of a Windows zone the one
// that stands for all its places, and the Windows name, "" where there is none. Both are "" for what is no zone, such as
// Exchange's tzone://Microsoft/Custom. Windows names are read without regard to case. Safe for concurrent use.
func ZoneNames(name string) (iana, windows string) {
	t := zoneTables()
	names, ok := t.byWindows[strings.ToLower(name)]
	if !ok {
		names, ok = t.byIANA[name]
	}
	if !ok && isZone(name) {
		names.iana = name
	}
	return names.iana, names.windows
}

// LoadZone returns the zone of an IANA or a Windows name; of the latter case does not matter. Safe for concurrent use.
func LoadZone(name string) (*time.Location, error) {
	iana, _ := ZoneNames(name)
	if iana == "" {
		return nil, fmt.Errorf("%q is no time zone", name)
	}
	return loadLocation(iana)
}

func isZone(name string) bool {
	_, err := loadLocation(name)
	return err == nil
}

// locations are the zones loaded so far, by IANA name: there are some 600 in all.
var locations sync.Map

// loadLocation is time.LoadLocation without its two names that mean no place, "" and "Local", and with a memory.
func loadLocation(iana string) (*time.Location, error) {
	if known, ok := locations.Load(iana); ok {
		return known.(*time.Location), nil
	}
	if iana == "" || iana == "Local" {
		return nil, fmt.Errorf("%q is no time zone", iana)
	}
	loc, err := time.LoadLocation(iana)
	if err != nil {
		return nil, err
	}
	locations.Store(iana, loc)
	return loc, nil
}
