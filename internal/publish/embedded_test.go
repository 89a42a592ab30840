package publish

import (
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"
)

func newLog() zerolog.Logger { return zerolog.Nop() }

func TestEmbeddedPortTaken(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dir := t.TempDir()
	_, err = StartEmbedded(dir, l.Addr().String(), newLog())
	if err == nil || !strings.Contains(err.Error(), "address already in use") || !strings.Contains(err.Error(), l.Addr().String()) {
		t.Fatalf("StartEmbedded = %v, want an error that names the taken address", err)
	}
	e, err := StartEmbedded(dir, "127.0.0.1:0", newLog()) // the failed attempt left nothing locked
	if err != nil {
		t.Fatal(err)
	}
	e.Shutdown()
}

func TestEmbeddedStoreInUse(t *testing.T) {
	b := newBroker(t)
	_, err := StartEmbedded(b.dir, "127.0.0.1:0", newLog())
	if err == nil || !strings.Contains(err.Error(), "in use by another triggerd") || !strings.Contains(err.Error(), b.dir) {
		t.Fatalf("StartEmbedded = %v, want an error that names the directory in use", err)
	}
	b.restart() // shutting down unlocks
}

func TestEmbeddedRefusesBadAddresses(t *testing.T) {
	for _, listen := range []string{"4222", "host:port:4222", "127.0.0.1:http", "127.0.0.1:70000", "127.0.0.1:-1"} {
		if e, err := StartEmbedded(t.TempDir(), listen, newLog()); err == nil {
			e.Shutdown()
			t.Errorf("StartEmbedded(%q) worked, want an error", listen)
		}
	}
}

func TestEmbeddedDirectoryThatCannotBeMade(t *testing.T) {
	b := newBroker(t)
	if _, err := StartEmbedded(filepath.Join(b.dir, "triggerd.lock", "x"), "127.0.0.1:0", newLog()); err == nil {
		t.Fatal("StartEmbedded worked under a file")
	}
}

func TestEmbeddedListensOnLoopbackByDefault(t *testing.T) {
	for listen, want := range map[string]string{"": "127.0.0.1:4222", ":5000": "127.0.0.1:5000", "[::1]:1": "[::1]:1"} {
		host, port, err := splitListen(listen)
		if err != nil {
			t.Fatal(err)
		}
		if wantHost, _, _ := net.SplitHostPort(want); host != wantHost || !strings.HasSuffix(want, ":"+strconv.Itoa(port)) {
			t.Errorf("splitListen(%q) = %s %d, want %s", listen, host, port, want)
		}
	}
}

func TestEmbeddedShutdownTwice(t *testing.T) {
	b := newBroker(t)
	url := b.ClientURL()
	b.Shutdown()
	b.Shutdown()
	if nc, err := nats.Connect(url); err == nil {
		nc.Close()
		t.Fatal("still reachable after Shutdown")
	}
}
