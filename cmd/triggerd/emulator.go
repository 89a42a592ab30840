package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/triggerd/triggerd/internal/emulator"
)

func emulatorCommand() *cobra.Command {
	var (
		listen  string
		users   []string
		imports []string
		every   time.Duration
		seed    int
	)
	cmd := &cobra.Command{
		Use:   "emulator",
		Short: "A Microsoft Graph and Entra ID on this machine, for people who write workflows",
		Long: "Serves a strict emulator of Microsoft Graph's mail, folders, calendars and subscriptions and of Entra ID's token endpoint, in\n" +
			"memory. Its control API under /emulator/ delivers, moves, changes and deletes mail, does the like with meetings, and switches\n" +
			"faults on.",
		Example: "  triggerd emulator --import ~/mail.mbox --every 10s\n" +
			"  curl -X POST http://127.0.0.1:9000/emulator/users/sales@contoso.com/messages \\\n" +
			"       -H 'Content-Type: application/json' -d '{\"subject\":\"hello\",\"from\":{\"address\":\"ada@example.com\"}}'\n" +
			"  curl -X POST http://127.0.0.1:9000/emulator/users/sales@contoso.com/meetings \\\n" +
			"       -H 'Content-Type: text/calendar' --data-binary @calendar.ics",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := net.Listen("tcp", listen)
			if err != nil {
				return fmt.Errorf("--listen: %w: stop what listens there, or choose another address", err)
			}
			out := cmd.OutOrStdout()
			emu := emulator.New(emulator.Options{Root: "http://" + l.Addr().String(), Seed: time.Now().UnixNano()})
			for _, u := range users {
				emu.AddUser(u)
			}
			for i := range seed {
				if _, err := emu.Deliver(users[0], sampleMail(i)); err != nil {
					return err
				}
			}
			printHowTo(out, emu, l.Addr().String(), users)
			if err := importAll(out, emu, users[0], imports); err != nil {
				fmt.Fprintln(cmd.ErrOrStderr(), "not imported:\n"+indent(err.Error(), "  "))
			}
			return serveEmulator(cmd.Context(), l, emu, func(ctx context.Context) error {
				return deliverEvery(ctx, emu, users, every, out)
			})
		},
	}
	cmd.Flags().StringVar(&listen, "listen", "127.0.0.1:9000", "host:port to serve at")
	cmd.Flags().StringArrayVar(&users, "user", []string{"sales@contoso.com", "support@contoso.com"}, "address of a mailbox; may be repeated")
	cmd.Flags().StringArrayVar(&imports, "import", nil, "put mail and meetings into the first mailbox: an .eml or .ics file, a folder of them, or an mbox; may be repeated")
	cmd.Flags().DurationVar(&every, "every", 0, "deliver a made-up mail so often; 0: never")
	cmd.Flags().IntVar(&seed, "seed-mail", 0, "so many made-up mails are there from the beginning")
	return cmd
}

func printHowTo(out io.Writer, emu *emulator.Server, addr string, users []string) {
	tenant, client, secret := emu.Credentials()
	fmt.Fprintf(out, "emulator at http://%s with %v\n\ntriggerd.yaml:\n\n", addr, users)
	fmt.Fprintf(out, `  clouds:
    lab: {graph: "http://%[1]s/v1.0", login: "http://%[1]s", like: global}
  connections:
    lab: {cloud: lab, tenant: %[2]s, client_id: %[3]s, auth: app, client_secret_file: lab-secret}
  watches:
    lab: {connection: lab, mailboxes: [%[4]s], mail: {folders: [all]}, calendar: {calendars: [all]}}

  # for a user instead, who signs in with `+"`triggerd login lab`"+`, and whose own mailbox is "me":
  #  lab: {cloud: lab, auth: delegated, client_id: %[6]s}

  printf '%%s' %[5]s > lab-secret
  TRIGGERD_CONFIG=triggerd.yaml TRIGGERD_STATE_DIR=./state TRIGGERD_PUBLIC_URL=http://127.0.0.1:8080 triggerd run

`, addr, tenant, client, users[0], secret, emulator.DefaultPublicClientID)
}

// serveEmulator serves until ctx is done, with something else beside.
func serveEmulator(ctx context.Context, l net.Listener, emu *emulator.Server, beside func(context.Context) error) error {
	srv := &http.Server{Handler: emu, ReadHeaderTimeout: 10 * time.Second}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		if err := srv.Serve(l); ctx.Err() == nil {
			return err
		}
		return nil
	})
	g.Go(func() error {
		<-ctx.Done()
		return srv.Close()
	})
	g.Go(func() error { return emu.Run(ctx) })
	g.Go(func() error { return beside(ctx) })
	return g.Wait()
}

func deliverEvery(ctx context.Context, emu *emulator.Server, users []string, every time.Duration, out io.Writer) error {
	if every <= 0 {
		return nil
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for i := 0; ; i++ {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		m := sampleMail(i)
		if _, err := emu.Deliver(users[i%len(users)], m); err != nil {
			return err
		}
		fmt.Fprintf(out, "delivered to %s: %s\n", users[i%len(users)], m.Subject)
	}
}

// samples are what arrives in a made-up mailbox.
var samples = []emulator.Mail{
	{Subject: "Invoice 2026-1183", From: emulator.Address{Name: "Contoso Billing", Address: "billing@contoso.com"}, HasAttachments: true},
	{Subject: "Where is my order?", From: emulator.Address{Name: "Ada Lovelace", Address: "ada@example.com"}},
	{Subject: "Minutes of Tuesday", From: emulator.Address{Name: "Grace Hopper", Address: "grace@example.com"}},
	{Subject: "Réservation confirmée ✈", From: emulator.Address{Name: "Agence Étoile", Address: "bonjour@example.fr"}},
	{Subject: "Printer on fire", From: emulator.Address{Name: "Facilities", Address: "facilities@contoso.com"}, Importance: "high"},
}

func sampleMail(i int) emulator.Mail {
	m := samples[i%len(samples)]
	m.Body = cmp.Or(m.Body, "Hello,\n\nplease see above.\n")
	m.To = []emulator.Address{{Name: "Sales", Address: "sales@contoso.com"}}
	if i >= len(samples) {
		m.Subject = fmt.Sprintf("%s (%d)", m.Subject, 1+rand.IntN(9999))
	}
	return m
}
