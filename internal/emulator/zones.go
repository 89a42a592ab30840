package emulator

import (
	"fmt"
	"time"
	_ "time/tzdata" // the machine may have no zones

	"github.com/yaegashi/wtz.go"
)

// customZone is what Graph reports for a zone that has no name.
const customZone = "tzone://Microsoft/Custom"

// newerZones are Windows zones that wtz does not know yet.
var newerZones = map[string]string{
	"South Sudan Standard Time": "Africa/Juba", "Yukon Standard Time": "America/Whitehorse", "Alberta Standard Time": "America/Edmonton",
	"British Columbia Standard Time": "America/Vancouver", "Manitoba Standard Time": "America/Winnipeg",
}

// location finds a zone by its Windows or IANA name. Empty is UTC, and so is a custom one, whose rules nobody knows.
func location(name string) (*time.Location, error) {
	if name == customZone {
		return time.UTC, nil
	}
	for _, names := range []map[string]string{wtz.WindowsToUnixMap, newerZones} {
		if iana, ok := names[name]; ok {
			name = iana
		}
	}
	loc, err := time.LoadLocation(name)
	if err != nil || loc == time.Local {
		return nil, fmt.Errorf("%q is neither a Windows nor an IANA time zone", name)
	}
	return loc, nil
}
