package certificate

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
)

var nop = zerolog.Nop()

// served is a pair of files that Run looks after, in a bubble.
type served struct {
	t         *testing.T
	dir       string
	cert, key string
	log       bytes.Buffer
	files     *Files
}

// serve begins with a certificate with the serial number 1 that is valid for four hours.
func serve(t *testing.T) *served {
	t.Helper()
	s := &served{t: t, dir: t.TempDir()}
	s.cert, s.key = filepath.Join(s.dir, "tls.crt"), filepath.Join(s.dir, "tls.key")
	s.renew(1, 0, 4*time.Hour)
	f, err := NewFiles(s.cert, s.key, zerolog.New(&s.log))
	if err != nil {
		t.Fatal(err)
	}
	s.files = f
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- f.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("Run = %v", err)
		}
	})
	return s
}

// renew writes another pair, valid from and until so long from now.
func (s *served) renew(serial int64, from, until time.Duration) {
	s.t.Helper()
	now := time.Now()
	cert, key := pair(s.t, serial, now.Add(from), now.Add(until))
	write(s.t, s.dir, "tls.crt", cert)
	write(s.t, s.dir, "tls.key", key)
}

// after lets time pass and wants a certificate to be in use, with an error in the status that begins so; empty: none.
func (s *served) after(d time.Duration, want int64, problem string) {
	s.t.Helper()
	time.Sleep(d)
	synctest.Wait()
	if got := serial(s.t, s.files.TLS()); got != want {
		s.t.Errorf("certificate %d is in use, want %d", got, want)
	}
	got := s.files.Status()
	if got.Source != SourceFiles || (got.Error == "") != (problem == "") || !strings.Contains(got.Error, problem) {
		s.t.Errorf("status %+v, want the error %q", got, problem)
	}
}

func TestFilesThatChange(t *testing.T) {
	const look = lookEvery + time.Second
	tests := []struct {
		name string
		run  func(s *served)
	}{
		{"nothing changes", func(s *served) { s.after(time.Hour, 1, "") }},
		{"another pair is taken up at the next look", func(s *served) {
			s.renew(2, 0, 180*24*time.Hour)
			s.after(0, 1, "")
			s.after(look, 2, "")
			if got := s.files.Status().NotAfter; time.Until(got) < 179*24*time.Hour {
				s.t.Errorf("it ends at %v", got)
			}
		}},
		{"a half-written certificate, and then all of it", func(s *served) {
			s.renew(2, 0, time.Hour)
			whole, _ := os.ReadFile(s.cert)
			write(s.t, s.dir, "tls.crt", whole[:len(whole)/2])
			s.after(look, 1, "") // no news yet: two files cannot be replaced at once
			s.after(look, 1, "failed to find any PEM data in certificate input")
			write(s.t, s.dir, "tls.crt", whole)
			s.after(look, 2, "")
		}},
		{"the certificate came, its key did not", func(s *served) {
			key, _ := os.ReadFile(s.key)
			s.renew(2, 0, time.Hour)
			write(s.t, s.dir, "tls.key", key)
			s.after(2*look, 1, "private key does not match public key")
		}},
		{"both are gone for a while", func(s *served) {
			os.Remove(s.cert)
			os.Remove(s.key)
			s.after(2*look, 1, "no such file")
			s.renew(3, 0, time.Hour)
			s.after(look, 3, "")
		}},
		{"one that has ended does not replace one that has not", func(s *served) {
			s.renew(2, -48*time.Hour, -24*time.Hour)
			s.after(2*look, 1, "which is not now")
		}},
		{"one that is not valid yet is taken up when it is", func(s *served) {
			s.renew(2, time.Hour, 48*time.Hour)
			s.after(2*look, 1, "which is not now")
			s.after(time.Hour, 2, "")
		}},
		{"any is better than one that has ended", func(s *served) {
			s.after(5*time.Hour, 1, "")
			s.renew(2, time.Hour, 48*time.Hour)
			s.after(look, 2, "")
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { tt.run(serve(t)) })
		})
	}
}

// TestLinksThatAreSwitched renews as Kubernetes, systemd and certbot do: the name stays, and leads elsewhere.
func TestLinksThatAreSwitched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t)
		now := time.Now()
		cert, key := pair(t, 2, now, now.Add(time.Hour))
		next := t.TempDir()
		for name, text := range map[string][]byte{"tls.crt": cert, "tls.key": key} {
			write(t, next, name, text)
			link := filepath.Join(next, name+".link")
			if err := os.Symlink(filepath.Join(next, name), link); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(link, filepath.Join(s.dir, name)); err != nil {
				t.Fatal(err)
			}
		}
		s.after(lookEvery, 2, "")
	})
}

func TestFilesSayOnceWhatIsWrong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t)
		key, err := os.ReadFile(s.key)
		if err != nil {
			t.Fatal(err)
		}
		write(t, s.dir, "tls.key", nil)
		s.after(time.Hour, 1, "failed to find any PEM data in key input")
		write(t, s.dir, "tls.key", key)
		s.after(lookEvery, 1, "")
		if got := s.log.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, `"level":"warn"`) || !strings.Contains(got, "the certificate before stays in use") {
			t.Errorf("log = %s, want one warning", got)
		}
		if strings.Contains(s.log.String(), "PRIVATE") {
			t.Error("the log holds the key")
		}
	})
}

func TestFilesAtTheStart(t *testing.T) {
	dir, now := t.TempDir(), time.Now()
	cert, key := pair(t, 1, now.Add(-time.Hour), now.Add(time.Hour))
	old, oldKey := pair(t, 2, now.Add(-2*time.Hour), now.Add(-time.Hour))
	good, goodKey := write(t, dir, "c", cert), write(t, dir, "k", key)
	tests := []struct{ name, cert, key, want string }{
		{"a pair", good, goodKey, ""},
		{"one that has ended is better than none", write(t, dir, "old", old), write(t, dir, "oldkey", oldKey), ""},
		{"another's key", good, filepath.Join(dir, "oldkey"), "private key does not match"},
		{"no certificate", filepath.Join(dir, "missing"), goodKey, "no such file"},
		{"no key", good, filepath.Join(dir, "missing"), "no such file"},
		{"mixed up", goodKey, good, "PEM"},
		{"empty", write(t, dir, "empty", nil), goodKey, "failed to find any PEM data"},
		{"a directory", dir, goodKey, "is a directory"},
	}
	for _, tt := range tests {
		f, err := NewFiles(tt.cert, tt.key, nop)
		switch {
		case tt.want == "" && err != nil:
			t.Errorf("%s: %v", tt.name, err)
		case tt.want == "" && f.Status().NotAfter.IsZero():
			t.Errorf("%s: status %+v", tt.name, f.Status())
		case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), tt.cert)):
			t.Errorf("%s: NewFiles = %v, want %q and the file", tt.name, err, tt.want)
		}
	}
}
