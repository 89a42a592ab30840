package publish

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/rs/zerolog"
)

// DefaultListen is where the embedded broker listens.
const DefaultListen = "127.0.0.1:4222"

const embeddedStartTime = 15 * time.Second

// Embedded is a nats-server with JetStream in this process, which any NATS client on the machine can use.
type Embedded struct {
	server *server.Server
	lock   *os.File
	once   sync.Once
}

// StartEmbedded starts a broker that keeps its streams in files under dir, made when missing, and listens on host:port
// (DefaultListen when empty; port 0 picks a free one). It returns when clients can connect. The broker asks nobody for
// credentials, so only loopback addresses are safe.
func StartEmbedded(dir, listen string, log zerolog.Logger) (*Embedded, error) {
	host, port, err := splitListen(listen)
	if err != nil {
		return nil, err
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		log.Warn().Str("listen", host).Msg("embedded NATS server listens beyond this machine and asks nobody for credentials")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("embedded NATS server: %w", err)
	}
	lock, err := lockDir(filepath.Join(dir, "triggerd.lock"))
	if err != nil {
		return nil, fmt.Errorf("embedded NATS server: %w", err)
	}
	srv, err := startServer(&server.Options{
		ServerName: "triggerd", Host: host, Port: port, JetStream: true, StoreDir: dir,
		NoSigs: true, DisableJetStreamBanner: true,
	}, log)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("embedded NATS server on %s: %w", net.JoinHostPort(host, strconv.Itoa(max(port, 0))), err), lock.Close())
	}
	return &Embedded{server: srv, lock: lock}, nil
}

func splitListen(listen string) (host string, port int, err error) {
	if listen == "" {
		listen = DefaultListen
	}
	host, portText, err := net.SplitHostPort(listen)
	if err == nil {
		port, err = strconv.Atoi(portText)
	}
	if err != nil || port < 0 || port > 65535 {
		return "", 0, fmt.Errorf("address %q of the embedded NATS server: want host:port", listen)
	}
	if host == "" {
		host = "127.0.0.1"
	}
	if port == 0 {
		port = server.RANDOM_PORT
	}
	return host, port, nil
}

// startServer starts a server and waits until it takes connections. What nats-server calls fatal ends the attempt, not
// the process.
func startServer(opts *server.Options, log zerolog.Logger) (*server.Server, error) {
	srv, err := server.NewServer(opts)
	if err != nil {
		return nil, err
	}
	sink := &serverLog{log: log}
	srv.SetLoggerV2(sink, false, false, false)
	srv.Start()
	if err = sink.fatal(); err == nil && !srv.ReadyForConnections(embeddedStartTime) {
		err = fmt.Errorf("not ready after %v", embeddedStartTime)
	}
	if err != nil {
		srv.Shutdown()
		srv.WaitForShutdown()
		return nil, err
	}
	return srv, nil
}

// ClientURL is where clients connect.
func (e *Embedded) ClientURL() string { return e.server.ClientURL() }

// Shutdown stops the broker and returns when its files are closed. Further calls do nothing.
func (e *Embedded) Shutdown() {
	e.once.Do(func() {
		e.server.Shutdown()
		e.server.WaitForShutdown()
		e.lock.Close() // which unlocks
	})
}

// serverLog passes nats-server's log on, and keeps what it calls fatal.
type serverLog struct {
	log   zerolog.Logger
	mu    sync.Mutex
	first error
}

func (l *serverLog) fatal() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.first
}

func (l *serverLog) Fatalf(format string, v ...any) {
	text := fmt.Sprintf(format, v...)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.first == nil {
		l.first = errors.New(strings.ToLower(text[:1]) + text[1:])
	}
}

func (l *serverLog) pass(ev *zerolog.Event, format string, v []any) {
	ev.Str("text", fmt.Sprintf(format, v...)).Msg("embedded NATS server")
}

func (l *serverLog) Noticef(format string, v ...any) { l.pass(l.log.Debug(), format, v) }
func (l *serverLog) Warnf(format string, v ...any)   { l.pass(l.log.Warn(), format, v) }
func (l *serverLog) Errorf(format string, v ...any)  { l.pass(l.log.Error(), format, v) }
func (l *serverLog) Debugf(string, ...any)           {}
func (l *serverLog) Tracef(string, ...any)           {}
