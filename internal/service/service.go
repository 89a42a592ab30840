// Package service speaks with the service manager, which is systemd: it takes the sockets that were passed, says when
// triggerd is ready, reloads and stops, and feeds the watchdog while the work goes on. Without a manager it does nothing.
package service

import (
	"context"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"
)

// Listener is the listening socket that the manager passed under a name (FileDescriptorName= of the socket unit); nil when
// it passed none at all. It is an error that it passed others. Call it once: it takes the sockets out of the environment.
func Listener(name string) (net.Listener, error) {
	passed, err := activation.ListenersWithNames()
	if err != nil {
		return nil, fmt.Errorf("sockets passed by the service manager: %w", err)
	}
	found := passed[name]
	delete(passed, name)
	if len(passed) == 0 && len(found) == 0 {
		return nil, nil
	}
	if len(found) != 1 || found[0] == nil || len(passed) > 0 {
		return nil, fmt.Errorf("the service manager passed %d stream sockets called %q%s: write one ListenStream= and FileDescriptorName=%s in triggerd.socket",
			len(found), name, others(passed), name)
	}
	return found[0], nil
}

func others(passed map[string][]net.Listener) string {
	var names []string
	for name := range passed {
		names = append(names, name)
	}
	if len(names) == 0 {
		return ""
	}
	slices.Sort(names)
	return ", and others called " + strings.Join(names, ", ")
}

// Manager is told how triggerd is. It is safe for concurrent use.
type Manager struct {
	watchdog time.Duration // within which it must be fed; 0: there is none
}

// lookEvery is how often the status line is brought up to date where there is no watchdog.
const lookEvery = 10 * time.Second

// NewManager finds the manager in the environment (NOTIFY_SOCKET, WATCHDOG_USEC, WATCHDOG_PID).
func NewManager() (*Manager, error) {
	d, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		return nil, fmt.Errorf("WATCHDOG_USEC: %w", err)
	}
	return &Manager{watchdog: d}, nil
}

// Ready says that the state is open, the configuration is in force and the listeners accept; also at the end of a reload.
func (*Manager) Ready(line string) { notify(daemon.SdNotifyReady, status(line)) }

// Reloading says that the configuration is being read again; Ready ends it.
func (*Manager) Reloading() { notify(daemon.SdNotifyReloading, daemon.SdNotifyMonotonicUsec()) }

// Stopping says that the end has begun.
func (*Manager) Stopping() { notify(daemon.SdNotifyStopping) }

// Run feeds the watchdog, three times in its interval, as long as alive answers nil in time, and keeps the status line
// up to date. It returns when ctx is done.
func (m *Manager) Run(ctx context.Context, alive func(context.Context) error, line func() string) error {
	if os.Getenv("NOTIFY_SOCKET") == "" {
		<-ctx.Done()
		return nil
	}
	every := lookEvery
	if m.watchdog > 0 {
		every = m.watchdog / 3
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		m.feed(ctx, every, alive, line)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (m *Manager) feed(ctx context.Context, within time.Duration, alive func(context.Context) error, line func() string) {
	asked, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	switch err := alive(asked); {
	case ctx.Err() != nil:
	case err != nil:
		notify(status("not alive: " + err.Error())) // the watchdog is not fed, and the manager acts
	case m.watchdog > 0:
		notify(daemon.SdNotifyWatchdog, status(line()))
	default:
		notify(status(line()))
	}
}

// status is the line that `systemctl status` shows.
func status(line string) string {
	line, _, _ = strings.Cut(line, "\n")
	return "STATUS=" + line
}

// notify sends one message. There is nobody to tell an error to: a manager that is not listening finds out by itself.
func notify(fields ...string) { _, _ = daemon.SdNotify(false, strings.Join(fields, "\n")) }
