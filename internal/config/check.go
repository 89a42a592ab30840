package config

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Check compares the settings with the watch file, where each is right by itself. The error joins all mistakes.
func Check(s Settings, f *File) error {
	var problems []error
	bad := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	for _, name := range slices.Sorted(maps.Keys(f.Connections)) {
		cloud := f.Connections[name].Cloud
		if strings.HasPrefix(s.PublicURL, "http://") && !cloud.Custom {
			bad("%sPUBLIC_URL: connection %q is in cloud %s, which delivers over https only: put TLS in front and write https://", prefix, name, cloud.Name)
		}
		if f.Connections[name].Auth == AuthDelegated && s.StateKeyFile == "" {
			bad("%sSTATE_KEY_FILE: connection %q keeps sign-ins of users, which are sealed with a key: make one with `triggerd key new FILE`, and name it", prefix, name)
		}
		if s.SubscriptionLifetime > cloud.MailMax {
			bad("%sSUBSCRIPTION_LIFETIME: %v is longer than the %v that cloud %s grants to connection %q", prefix, s.SubscriptionLifetime, cloud.MailMax, cloud.Name, name)
		}
	}
	if s.PublicURL == "" {
		for _, w := range f.Watches {
			if reason := w.needsPush(); reason != "" {
				bad("watch %q: %s needs notifications, and %sPUBLIC_URL is not set: set it, or change the watch", w.Name, reason, prefix)
			}
		}
	}
	return errors.Join(problems...)
}
