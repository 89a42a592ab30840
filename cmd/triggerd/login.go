package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"github.com/triggerd/triggerd/internal/config"
	"github.com/triggerd/triggerd/internal/connections"
	"github.com/triggerd/triggerd/internal/seal"
	"github.com/triggerd/triggerd/internal/status"
	"github.com/triggerd/triggerd/internal/store"
)

// loginOptions are how somebody wants to sign in.
type loginOptions struct {
	connection  string
	device      bool
	paste       bool
	port        int
	redirectURI string
	asJSON      bool
}

func loginCommand() *cobra.Command {
	var o loginOptions
	cmd := &cobra.Command{
		Use:   "login CONNECTION",
		Short: "Signs a delegated connection in, in a browser, with a code, or by pasting an address",
		Long: `Signs a delegated connection in. The first user to sign in is the one the connection reads for; another one is refused later.

Without flags it prints an address for a browser and waits on this machine for the browser to come back. On a machine
without a browser there are three ways:
  a tunnel   ssh -L 8400:127.0.0.1:8400 host, and there: triggerd login CONNECTION --port 8400
  --paste    open the address anywhere, and paste the address at which the browser ended
  --device   type a code on another device; many tenants forbid it (Conditional Access)

It speaks to the daemon when one runs, which catches up at once with what was missed; else it opens the state itself.`,
		Example: "  triggerd login contoso\n  triggerd login contoso --paste\n  triggerd login contoso --device",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.connection = args[0]
			switch {
			case o.device && o.paste:
				return usage(errors.New("--device and --paste are two ways to sign in: choose one"))
			case o.port != 0 && (o.device || o.paste):
				return usage(errors.New("--port is for the browser on this machine: leave it out with --device and --paste"))
			case o.redirectURI != "" && o.device:
				return usage(errors.New("--redirect-uri: a device code comes back nowhere: leave it out"))
			}
			return login(cmd.Context(), o, cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	cmd.Flags().BoolVar(&o.device, "device", false, "print a code to be typed on another device")
	cmd.Flags().BoolVar(&o.paste, "paste", false, "paste the address at which the browser ended")
	cmd.Flags().IntVar(&o.port, "port", 0, "port on 127.0.0.1 to wait on for the browser; 0: any that is free")
	cmd.Flags().StringVar(&o.redirectURI, "redirect-uri", "", "redirect URI as registered for the app, with --paste (default: <login>/common/oauth2/nativeclient)")
	cmd.Flags().BoolVar(&o.asJSON, "json", false, "print the outcome as JSON; what to do is printed to stderr")
	return cmd
}

// signer signs connections in: the daemon that runs, or the state itself when none does.
type signer interface {
	begin(ctx context.Context, in connections.BeginRequest) (connections.Beginning, error)
	finish(ctx context.Context, in connections.FinishRequest) (connections.Outcome, error)
}

func login(ctx context.Context, o loginOptions, stdin io.Reader, stdout, stderr io.Writer) error {
	set, file, err := loadConfiguration()
	if err != nil {
		return usage(err)
	}
	conf, ok := file.Connections[o.connection]
	if !ok {
		return usage(fmt.Errorf("no connection is called %q; there are: %s", o.connection, strings.Join(delegatedConnections(file), ", ")))
	}
	s, done, err := newSigner(ctx, set, file)
	if err != nil {
		return err
	}
	tell := stdout
	if o.asJSON {
		tell = stderr
	}
	out, err := signIn(ctx, o, conf, s, stdin, tell)
	if err := errors.Join(err, done()); err != nil {
		return err
	}
	if o.asJSON {
		return printJSON(stdout, out)
	}
	return explainLogin(stdout, out)
}

func signIn(ctx context.Context, o loginOptions, conf config.Connection, s signer, stdin io.Reader, tell io.Writer) (connections.Outcome, error) {
	switch {
	case o.device:
		return loginByDevice(ctx, o, s, tell)
	case o.paste:
		if o.redirectURI == "" {
			o.redirectURI = conf.Cloud.Login + "/common/oauth2/nativeclient"
		}
		return loginByPaste(ctx, o, s, stdin, tell)
	}
	return loginByBrowser(ctx, o, s, tell)
}

func explainLogin(w io.Writer, out connections.Outcome) error {
	fmt.Fprintf(w, "connection %s reads for %s (tenant %s)\n", out.Connection, out.User, out.TenantID)
	fmt.Fprintf(w, "granted: %s\n", strings.Join(out.Granted, ", "))
	if len(out.Missing) > 0 {
		fmt.Fprintf(w, "\nnot granted, and needed: %s\nAn administrator grants it at\n  %s\nand then sign in again.\n", strings.Join(out.Missing, ", "), out.ConsentURL)
		return &exitError{code: exitUnhealthy}
	}
	return nil
}

func loginByDevice(ctx context.Context, o loginOptions, s signer, tell io.Writer) (out connections.Outcome, err error) {
	b, err := s.begin(ctx, connections.BeginRequest{Connection: o.connection, Way: connections.Device})
	if err != nil {
		return out, err
	}
	fmt.Fprintf(tell, "Open %s on any device and type the code\n\n  %s\n\nIt is good until %s. Waiting …\n", b.URL, b.UserCode, b.ExpiresAt.Local().Format("15:04"))
	ctx, cancel := context.WithDeadline(ctx, b.ExpiresAt.Add(time.Minute))
	defer cancel()
	return s.finish(ctx, connections.FinishRequest{ID: b.ID})
}

func loginByPaste(ctx context.Context, o loginOptions, s signer, stdin io.Reader, tell io.Writer) (out connections.Outcome, err error) {
	b, err := s.begin(ctx, connections.BeginRequest{Connection: o.connection, Way: connections.Paste, RedirectURI: o.redirectURI})
	if err != nil {
		return out, err
	}
	fmt.Fprintf(tell, "Open this address in a browser, as the user whose mail is to be read:\n\n  %s\n\n"+
		"The browser ends at %s…; the page may be empty or an error. Paste its whole address here (until %s):\n", b.URL, o.redirectURI, b.ExpiresAt.Local().Format("15:04"))
	ctx, cancel := context.WithDeadline(ctx, b.ExpiresAt)
	defer cancel()
	line, err := readLine(ctx, stdin)
	if err != nil {
		return out, err
	}
	return finish(ctx, s, connections.FinishRequest{ID: b.ID, Redirected: line})
}

// readLine reads a line that is not empty, or gives up when ctx is done.
func readLine(ctx context.Context, r io.Reader) (string, error) {
	lines, failed := make(chan string, 1), make(chan error, 1)
	go func() { // ends with the process when nothing is ever typed
		for in := bufio.NewReaderSize(r, 64<<10); ; {
			line, err := in.ReadString('\n')
			if line = strings.TrimSpace(line); line != "" {
				lines <- line
				return
			}
			if err != nil {
				failed <- errors.New("nothing was pasted")
				return
			}
		}
	}()
	select {
	case line := <-lines:
		return line, nil
	case err := <-failed:
		return "", err
	case <-ctx.Done():
		return "", fmt.Errorf("sign-in given up: %w", context.Cause(ctx))
	}
}

func loginByBrowser(ctx context.Context, o loginOptions, s signer, tell io.Writer) (out connections.Outcome, err error) {
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", o.port))
	if err != nil {
		return out, fmt.Errorf("--port: %w: choose another", err)
	}
	defer func() { _ = l.Close() }() // comeBack closes it when it is reached
	port := l.Addr().(*net.TCPAddr).Port
	// Entra ignores the port of http://localhost, so the registration needs no particular one.
	uri := o.redirectURI
	if uri == "" {
		uri = fmt.Sprintf("http://localhost:%d", port)
	}
	b, err := s.begin(ctx, connections.BeginRequest{Connection: o.connection, Way: connections.Browser, RedirectURI: uri})
	if err != nil {
		return out, err
	}
	fmt.Fprintf(tell, "Open this address in a browser on this machine, as the user whose mail is to be read:\n\n  %s\n\n"+
		"No browser here? From where there is one: ssh -L %d:127.0.0.1:%d this-machine — or use --paste.\nWaiting until %s …\n",
		b.URL, port, port, b.ExpiresAt.Local().Format("15:04"))
	ctx, cancel := context.WithDeadline(ctx, b.ExpiresAt)
	defer cancel()
	redirected, err := comeBack(ctx, l)
	if err != nil {
		return out, err
	}
	return finish(ctx, s, connections.FinishRequest{ID: b.ID, Redirected: redirected})
}

// finish leaves the last steps their time, whatever is left of the sign-in's.
func finish(ctx context.Context, s signer, in connections.FinishRequest) (connections.Outcome, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Minute)
	defer cancel()
	return s.finish(ctx, in)
}

// comeBack waits for the one request of a browser that comes back from signing in, and returns its address.
func comeBack(ctx context.Context, l net.Listener) (string, error) {
	arrived := make(chan string, 1)
	srv := &http.Server{
		ReadHeaderTimeout: 5 * time.Second, MaxHeaderBytes: 64 << 10,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			h := w.Header()
			h.Set("Content-Type", "text/plain; charset=utf-8")
			h.Set("Content-Security-Policy", "default-src 'none'")
			h.Set("Cache-Control", "no-store")
			h.Set("Referrer-Policy", "no-referrer")
			if q := r.URL.Query(); r.Method != http.MethodGet || !q.Has("state") || !q.Has("code") && !q.Has("error") {
				http.Error(w, "nothing here", http.StatusNotFound)
				return
			}
			select {
			case arrived <- "http://localhost" + r.URL.RequestURI():
				fmt.Fprintln(w, "Thank you. The terminal tells whether the sign-in went well; this window can be closed.")
			default:
				http.Error(w, "one answer is enough", http.StatusConflict)
			}
		}),
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = srv.Serve(l) // ends when it is shut down
	}()
	defer func() {
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second) // the page still has to be sent
		defer cancel()
		_ = srv.Shutdown(stop)
		<-served
	}()
	select {
	case address := <-arrived:
		return address, nil
	case <-ctx.Done():
		return "", fmt.Errorf("sign-in given up: %w", context.Cause(ctx))
	}
}

func delegatedConnections(file *config.File) (out []string) {
	for name, c := range file.Connections {
		if c.Auth == config.AuthDelegated {
			out = append(out, name)
		}
	}
	return out
}

// newSigner finds who keeps the state. Done must be called.
func newSigner(ctx context.Context, set config.Settings, file *config.File) (s signer, done func() error, err error) {
	client, err := adminClient(set)
	if err != nil {
		return nil, nil, err
	}
	if _, err := client.Status(ctx); err == nil {
		return viaDaemon{client}, func() error { return nil }, nil
	} else if !errors.Is(err, status.ErrNoDaemon) {
		return nil, nil, err
	}
	room, done, err := openConnections(set, file)
	return alone{room}, done, err
}

// openConnections opens the state without a daemon. Done must be called.
func openConnections(set config.Settings, file *config.File) (room *connections.Room, done func() error, err error) {
	var keys *seal.Keys
	if set.StateKeyFile != "" {
		if keys, err = seal.ReadKeys(set.StateKeyFile); err != nil {
			return nil, nil, usage(fmt.Errorf("TRIGGERD_STATE_KEY_FILE: %w", err))
		}
	}
	if err := os.MkdirAll(set.StateDir, 0o700); err != nil {
		return nil, nil, err
	}
	st, err := store.Open(set.StateDir, store.Options{})
	if err != nil {
		return nil, nil, err
	}
	room, err = connections.New(st, connections.Options{File: file, Keys: keys, KeyFile: set.StateKeyFile, Log: zerolog.Nop()})
	if err != nil {
		return nil, nil, errors.Join(err, st.Close())
	}
	return room, st.Close, nil
}

// viaDaemon asks the daemon, which knows at once.
type viaDaemon struct{ client *status.Client }

func (d viaDaemon) begin(ctx context.Context, in connections.BeginRequest) (out connections.Beginning, err error) {
	return out, d.client.Call(ctx, http.MethodPost, "/api/v1/login", in, &out)
}

func (d viaDaemon) finish(ctx context.Context, in connections.FinishRequest) (out connections.Outcome, err error) {
	return out, d.client.Call(ctx, http.MethodPost, "/api/v1/login/finish", in, &out)
}

// alone has the state open itself.
type alone struct{ room *connections.Room }

func (a alone) begin(ctx context.Context, in connections.BeginRequest) (connections.Beginning, error) {
	return a.room.BeginLogin(ctx, in.Connection, in.Way, in.RedirectURI)
}

func (a alone) finish(ctx context.Context, in connections.FinishRequest) (connections.Outcome, error) {
	return a.room.FinishLogin(ctx, in.ID, in.Redirected)
}
