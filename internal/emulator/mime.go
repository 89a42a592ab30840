package emulator

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/mail"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/emersion/go-mbox"
	"github.com/jhillyerd/enmime/v2"
)

// maxMail bounds one mail that is read, in bytes.
const maxMail = 150 << 20

// mailExtensions are what Import takes from a folder: one mail a file, or an mbox (.mbox, and any that begins with
// "From "). A file that is named itself is taken whatever it is called.
var mailExtensions = []string{".eml", ".raw", ".msg", ".mbox"}

// DeliverMIME delivers a mail as it came over the wire. It is received now; its Date becomes sentDateTime.
func (s *Server) DeliverMIME(user string, raw io.Reader) (id string, err error) {
	m, err := parseMIME(raw)
	if err != nil {
		return "", err
	}
	return s.Deliver(user, m)
}

// Import delivers the mails of path: a file with one mail, an mbox, or a folder of such files (.eml, .raw, .msg with
// MIME in it, .mbox), searched to its depths in the order of names. n mails were delivered; err joins what was not, each
// with its file name.
func (s *Server) Import(user, path string) (n int, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	if !info.IsDir() {
		return s.importFile(user, path)
	}
	var problems []error
	err = filepath.WalkDir(path, func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			problems = append(problems, err)
			return nil
		case !d.Type().IsRegular() || !slices.Contains(mailExtensions, strings.ToLower(filepath.Ext(name))):
			return nil
		}
		got, err := s.importFile(user, name)
		n += got
		if err != nil {
			problems = append(problems, err)
		}
		return nil
	})
	return n, errors.Join(append(problems, err)...)
}

// importFile delivers one mail, or all of an mbox.
func (s *Server) importFile(user, name string) (n int, err error) {
	f, err := os.Open(name)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	r := bufio.NewReader(f)
	if start, _ := r.Peek(5); string(start) == "From " {
		return s.importMbox(user, name, r)
	}
	if _, err := s.DeliverMIME(user, r); err != nil {
		return 0, fmt.Errorf("%s: %w", name, err)
	}
	return 1, nil
}

func (s *Server) importMbox(user, name string, r io.Reader) (n int, err error) {
	var problems []error
	box := mbox.NewReader(r)
	for i := 1; ; i++ {
		raw, err := box.NextMessage()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			problems = append(problems, fmt.Errorf("%s: message %d: %w", name, i, err))
			break
		}
		if _, err := s.DeliverMIME(user, raw); err != nil {
			problems = append(problems, fmt.Errorf("%s: message %d: %w", name, i, err))
			continue
		}
		n++
	}
	return n, errors.Join(problems...)
}

var (
	errNotMIME = errors.New("not a MIME mail")
	errOutlook = errors.New("an Outlook .msg file, which is not MIME: save the mail as .eml")
	errTooBig  = errors.New("larger than 150 MiB")
)

// lenient makes the best of what mail there is.
var lenient = enmime.NewParser(
	enmime.DisableTextConversion(true), enmime.SkipMalformedParts(true),
	enmime.MultipartWOBoundaryAsSinglePart(true), enmime.StripMediaTypeInvalidCharacters(true),
)

// parseMIME reads a mail as well as it can be read.
func parseMIME(r io.Reader) (m Mail, err error) {
	raw, err := io.ReadAll(io.LimitReader(r, maxMail+1))
	switch {
	case err != nil:
		return m, err
	case len(raw) > maxMail:
		return m, errTooBig
	case bytes.HasPrefix(raw, []byte("\xD0\xCF\x11\xE0")):
		return m, errOutlook
	}
	defer func() { // whatever a parser makes of odd mail, the emulator goes on
		if v := recover(); v != nil {
			err = fmt.Errorf("%w: the parser gave up: %v", errNotMIME, v)
		}
	}()
	env, err := lenient.ReadEnvelope(bytes.NewReader(raw))
	if err != nil {
		return m, fmt.Errorf("%w: %w", errNotMIME, err)
	}
	if len(env.GetHeaderKeys()) == 0 {
		return m, fmt.Errorf("%w: it has no headers", errNotMIME)
	}
	return mailOf(env), nil
}

func mailOf(env *enmime.Envelope) Mail {
	m := Mail{
		Subject: env.GetHeader("Subject"), From: first(addresses(env, "From")), Sender: first(addresses(env, "Sender")),
		To: addresses(env, "To"), Cc: addresses(env, "Cc"), Bcc: addresses(env, "Bcc"), ReplyTo: addresses(env, "Reply-To"),
		Body: env.Text, InternetMessageID: strings.TrimSpace(env.GetHeader("Message-ID")),
		HasAttachments: len(env.Attachments) > 0, Importance: importanceOf(env),
	}
	if env.HTML != "" {
		m.Body, m.HTML = env.HTML, true
		m.Preview = previewOf(env.Text, false)
	}
	if at, err := env.Date(); err == nil {
		m.SentAt = at
	}
	for _, name := range env.GetHeaderKeys() {
		for _, value := range env.GetHeaderValues(name) {
			m.Headers = append(m.Headers, Header{Name: clean(name), Value: clean(value)})
		}
	}
	return m
}

func first(list []Address) Address {
	if len(list) == 0 {
		return Address{}
	}
	return list[0]
}

// addresses reads an address header; what cannot be read becomes a name.
func addresses(env *enmime.Envelope, header string) []Address {
	text := strings.TrimSpace(env.GetHeader(header))
	if text == "" {
		return nil
	}
	list, err := env.AddressList(header)
	if err != nil || len(list) == 0 {
		if one, err := mail.ParseAddress(text); err == nil {
			return []Address{{Name: one.Name, Address: one.Address}}
		}
		return []Address{{Name: text}}
	}
	out := make([]Address, 0, len(list))
	for _, a := range list {
		if a != nil {
			out = append(out, Address{Name: a.Name, Address: a.Address})
		}
	}
	return out
}

func importanceOf(env *enmime.Envelope) string {
	switch strings.ToLower(strings.TrimSpace(env.GetHeader("Importance"))) {
	case "high":
		return "high"
	case "low":
		return "low"
	}
	return "normal"
}
