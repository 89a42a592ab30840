package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/triggerd/triggerd/internal/config"
	"github.com/triggerd/triggerd/internal/event"
	"github.com/triggerd/triggerd/internal/publish"
	"github.com/triggerd/triggerd/internal/status"
)

func tailCommand() *cobra.Command {
	var (
		asJSON bool
		from   string
		count  int
	)
	cmd := &cobra.Command{
		Use:   "tail [SUBJECT]",
		Short: "Events as they are published",
		Long: "Reads the stream with the broker settings of the daemon; without TRIGGERD_NATS_URL from the embedded broker at\n" +
			"TRIGGERD_NATS_LISTEN. SUBJECT may hold NATS wildcards; the default is everything.",
		Example: "  triggerd tail\n  triggerd tail 'graph.sales.*.mail.received' --json\n  triggerd tail --from start --count 10",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			set, err := config.LoadSettings()
			if err != nil {
				return usage(err)
			}
			t := publish.TailOptions{}
			switch from {
			case "start":
				t.All = true
			case "now":
			default:
				return usage(fmt.Errorf("--from %q: write start or now", from))
			}
			if len(args) > 0 {
				t.Subject = args[0]
			}
			seen := 0
			err = publish.Tail(cmd.Context(), natsOptions(set), t, func(r publish.Received) error {
				if err := printEvent(cmd.OutOrStdout(), &r, asJSON); err != nil {
					return err
				}
				if seen++; count > 0 && seen >= count {
					return errEnough
				}
				return nil
			})
			if errors.Is(err, errEnough) || errors.Is(err, context.Canceled) {
				return nil
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print each event as one line of CloudEvents JSON")
	cmd.Flags().StringVar(&from, "from", "now", "where to begin: start or now")
	cmd.Flags().IntVarP(&count, "count", "n", 0, "end after so many events; 0: never")
	return cmd
}

var errEnough = errors.New("enough")

func natsOptions(set config.Settings) publish.Options {
	return publish.Options{
		URL: cmp.Or(set.NATSURL, "nats://"+set.NATSListen), CredsFile: set.NATSCredsFile, NKeyFile: set.NATSNKeyFile,
		TLSCAFile: set.NATSTLSCAFile, TLSCertFile: set.NATSTLSCertFile, TLSKeyFile: set.NATSTLSKeyFile,
		Stream: set.Stream, SubjectPrefix: set.SubjectPrefix,
	}
}

func printEvent(w io.Writer, r *publish.Received, asJSON bool) error {
	if r.Err != nil {
		_, err := fmt.Fprintf(w, "%s %s: %v\n", r.StoredAt.Format(time.TimeOnly), r.NATSSubject, r.Err)
		return err
	}
	if asJSON {
		doc := map[string]any{"data": json.RawMessage(r.Data)}
		for name, v := range r.Attributes {
			doc[name] = v
		}
		b, err := json.Marshal(doc)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(w, "%s\n", b)
		return err
	}
	_, err := fmt.Fprintln(w, eventLine(&r.Event, r.StoredAt))
	return err
}

// eventLine says in one line what happened, by which path it was seen, and how long that took.
func eventLine(e *event.Event, storedAt time.Time) string {
	if !e.Numbered() {
		return selfLine(e, storedAt)
	}
	what := ""
	if e.Area == event.AreaCalendar {
		var d event.CalendarData
		if err := json.Unmarshal(e.Data, &d); err == nil {
			what = meetingText(e.Name, &d)
		}
	} else {
		var d event.Data
		if err := json.Unmarshal(e.Data, &d); err == nil {
			what = messageText(&d)
		}
	}
	return strings.TrimSpace(fmt.Sprintf("%s  %-10s %-12s %-6s #%-4d %s", storedAt.Local().Format("15:04:05.000"), e.Mailbox, e.Name, e.Via, e.Sequence, what))
}

// messageText says which message an event is about, and where that is.
func messageText(d *event.Data) string {
	what := d.Item.ID
	if m := d.Message; m != nil {
		what = cmp.Or(printable(m.Subject), "(no subject)")
		if m.From != nil {
			what += " — from " + printable(cmp.Or(m.From.Name, m.From.Address))
		}
	}
	if d.Moved != nil {
		from := "somewhere else"
		if d.Moved.From != nil {
			from = folderName(d.Moved.From)
		}
		what += fmt.Sprintf(" [%s → %s]", from, folderName(d.Moved.To))
	} else if d.Item.Folder != nil {
		what += fmt.Sprintf(" [%s]", folderName(d.Item.Folder))
	}
	return what
}

// selfLine says what triggerd tells of itself: of a connection what to do, of a subscription or a watch why.
func selfLine(e *event.Event, storedAt time.Time) string {
	var d struct {
		Remedy   string
		Reason   string
		Folder   *event.Folder
		Calendar *event.Calendar
	}
	_ = json.Unmarshal(e.Data, &d) // what cannot be read is left out
	what := cmp.Or(d.Remedy, d.Reason)
	if e.Area != event.AreaConnection {
		what = strings.TrimSuffix(e.Area+": "+what, ": ")
	}
	switch {
	case d.Folder != nil:
		what += " [" + folderName(d.Folder) + "]"
	case d.Calendar != nil:
		what += " [" + calendarName(d.Calendar) + "]"
	case e.Area == event.AreaSubscription:
		what += " [" + status.AllCalendars + "]" // they share one
	}
	return strings.TrimSpace(fmt.Sprintf("%s  %-10s %-12s %-6s %-5s %s", storedAt.Local().Format("15:04:05.000"), e.Mailbox, e.Name, "", "", printable(what)))
}

func folderName(f *event.Folder) string {
	return printable(cmp.Or(f.Path, f.WellKnownName, f.ID))
}

// printable is a text that others wrote, so that it fits in a line and cannot steer the terminal.
func printable(s string) string {
	s = status.Plain(s)
	if r := []rune(s); len(r) > 80 {
		s = string(r[:79]) + "…"
	}
	return s
}
