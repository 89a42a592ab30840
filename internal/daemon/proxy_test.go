package daemon

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// tool finds a program that make testtools installs.
func tool(t *testing.T, name string) string {
	t.Helper()
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/sbin") {
		if path := filepath.Join(dir, name); isProgram(path) {
			return path
		}
	}
	t.Fatalf("%s is not installed: make testtools", name)
	return ""
}

func isProgram(path string) bool {
	info, err := os.Stat(path)
	return err == nil && !info.IsDir() && info.Mode()&0o111 != 0
}

// example is a file from configs with some of its text replaced, all of which must be there.
func example(t *testing.T, name string, replace ...string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", "configs", name))
	must(t, err)
	text := string(b)
	for i := 0; i < len(replace); i += 2 {
		if !strings.Contains(text, replace[i]) {
			t.Fatalf("configs/%s does not hold %q", name, replace[i])
		}
		text = strings.ReplaceAll(text, replace[i], replace[i+1])
	}
	return text
}

// runProxy runs a program until the test ends, and returns when it accepts connections at address.
func runProxy(t *testing.T, address string, cmd *exec.Cmd) {
	t.Helper()
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
	})
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			conn.Close()
			return
		}
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("%s ended: %v\n%s", cmd.Path, err, &said)
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s does not answer at %s: %v\n%s", cmd.Path, address, err, &said)
		}
	}
}

// behind checks a daemon that a proxy stands in front of.
func behind(t *testing.T, proxy func(t *testing.T, address, upstream, cert, key string) *exec.Cmd) {
	cert, key := localhostPair(t, 1)
	p := newPublic(t, freeAddress(t), cert)
	runProxy(t, p.address, proxy(t, p.address, p.get("TRIGGERD_LISTEN"), cert, key))
	resp, err := p.client(0).Post(p.url()+"/graph/notifications", "application/json", strings.NewReader("{}"))
	must(t, err)
	resp.Body.Close()
	if resp.StatusCode != 502 {
		t.Errorf("while triggerd is away the answer is %d, want 502", resp.StatusCode)
	}
	d := p.start()
	defer d.stop(t)
	p.carriesGraph()
	p.refusesStrangers()
}

func TestBehindCaddy(t *testing.T) {
	behind(t, func(t *testing.T, address, upstream, cert, key string) *exec.Cmd {
		_, port, _ := net.SplitHostPort(address)
		dir := t.TempDir()
		file := filepath.Join(dir, "Caddyfile")
		must(t, os.WriteFile(file, []byte(example(t, "Caddyfile",
			"hook.example.com {", "https://localhost:"+port+" {", "tls {", "tls "+cert+" "+key+" {", "reverse_proxy 127.0.0.1:8080 {", "reverse_proxy "+upstream+" {",
			"{\n\t# Graph keeps", "{\n\tadmin off\n\tauto_https disable_redirects\n\t# Graph keeps")), 0o600))
		cmd := exec.Command(tool(t, "caddy"), "run", "--config", file, "--adapter", "caddyfile")
		cmd.Env = append(os.Environ(), "HOME="+dir, "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir)
		return cmd
	})
}

func TestBehindNginx(t *testing.T) {
	behind(t, func(t *testing.T, address, upstream, cert, key string) *exec.Cmd {
		dir := t.TempDir()
		must(t, os.WriteFile(filepath.Join(dir, "triggerd.conf"), []byte(example(t, "nginx.conf",
			"listen 443 ssl;", "listen "+address+" ssl;", "\tlisten [::]:443 ssl;\n", "", "server_name hook.example.com;", "server_name localhost;",
			"/etc/letsencrypt/live/hook.example.com/fullchain.pem", cert, "/etc/letsencrypt/live/hook.example.com/privkey.pem", key,
			"server 127.0.0.1:8080;", "server "+upstream+";")), 0o600))
		main := fmt.Sprintf("daemon off;\nmaster_process off;\npid %[1]s/pid;\nerror_log stderr;\nevents {}\nhttp {\n\taccess_log off;\n", dir)
		for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
			main += fmt.Sprintf("\t%s_temp_path %s/%s;\n", kind, dir, kind)
		}
		file := filepath.Join(dir, "nginx.conf")
		must(t, os.WriteFile(file, []byte(main+"\tinclude "+dir+"/triggerd.conf;\n}\n"), 0o600))
		return exec.Command(tool(t, "nginx"), "-p", dir, "-c", file)
	})
}
