package status

import (
	"bytes"
	"cmp"
	"embed"
	"fmt"
	"html/template"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"
)

//go:embed page
var pageFiles embed.FS

// page is the template; its functions are told the time when it is filled in.
var page = template.Must(template.New("page.html").Funcs(pageWords(time.Time{})).ParseFS(pageFiles, "page/page.html"))

// shownRows is how many subscriptions and feeds the page shows, the worst first, unless it is asked for all.
const shownRows = 20

// policy lets the page have what comes with the daemon, and nothing else.
const policy = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// servePage adds the status page to the admin listener.
func servePage(mux *http.ServeMux, src Source) {
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		rep := src.Report()
		q := r.URL.Query()
		b, err := render(&rep, q.Get("q"), q.Has("all"))
		if err != nil {
			http.Error(w, "the page cannot be made: "+err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Content-Security-Policy", policy)
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		_, _ = w.Write(b) // the client went away
	})
	for name, kind := range map[string]string{"page.css": "text/css", "page.js": "text/javascript"} {
		b, err := pageFiles.ReadFile("page/" + name)
		if err != nil {
			panic(err) // it is embedded
		}
		mux.HandleFunc("GET /"+name, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", kind+"; charset=utf-8")
			w.Header().Set("X-Content-Type-Options", "nosniff")
			_, _ = w.Write(b)
		})
	}
}

// view is a report as the page shows it.
type view struct {
	*Report
	Query       string
	Many        bool // so many feeds that a filter helps
	Lives       []life
	HiddenLives int
	Shown       []feedRow
	HiddenFeeds int
	Bars        []bar
	RateText    string
	Settled     uint64
	Outcomes    string
	Published   string
}

// life is a subscription on its time line; places on it are per cent.
type life struct {
	*Subscription
	Mark, Sign string
	Now, Next  float64
	Ticks      []float64 // renewals
	Lapsed     bool
	Text       string // the same for who cannot see it
}

// feedRow is a folder or a calendar.
type feedRow struct {
	*Feed
	Mark, Sign string
	Share      string // of changes that push announced
	Progress   string
}

// bar is a minute.
type bar struct{ X, Y, H float64 }

func render(r *Report, query string, all bool) ([]byte, error) {
	v := view{Report: r, Query: query, Many: len(r.Feeds) > 10, Settled: r.Notifications.settled()}
	v.lives(all)
	v.feeds(all)
	v.rate()
	v.Outcomes = counted(r.Notifications.Settled)
	v.Published = counted(r.Events)
	t, err := page.Clone()
	if err != nil {
		return nil, err
	}
	t.Funcs(pageWords(r.At))
	var b bytes.Buffer
	err = t.Execute(&b, v)
	return b.Bytes(), err
}

// pageWords are the functions of the template.
func pageWords(now time.Time) template.FuncMap {
	return template.FuncMap{
		"since":   func(t time.Time) string { return short(max(0, now.Sub(t))) },
		"ahead":   func(t time.Time) string { return ahead(t.Sub(now)) },
		"short":   short,
		"words":   words,
		"join":    func(s []string) string { return strings.Join(s, ", ") },
		"mark":    mark,
		"sign":    sign,
		"clock":   func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") },
		"latency": func(p Published) string { return latency(p.At.Sub(p.Time)) },
	}
}

// mark and sign say how a state is, by colour and without.
func mark(state string) string {
	switch state {
	case "ok", "fresh":
		return "good"
	case "reading", "unknown", "throttled", "unreachable":
		return "warn"
	}
	return "bad"
}

func sign(state string) string {
	return map[string]string{"good": "✓", "warn": "…", "bad": "✗"}[mark(state)]
}

func latency(d time.Duration) string {
	if d < 10*time.Second {
		return fmt.Sprintf("%.1f s", max(0, d.Seconds()))
	}
	return short(d)
}

func counted(m map[string]uint64) string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(m)) {
		if m[name] > 0 {
			out = append(out, fmt.Sprintf("%s %d", name, m[name]))
		}
	}
	return cmp.Or(strings.Join(out, ", "), "nothing yet")
}

// matches reports whether a row is asked for.
func (v *view) matches(mailbox, name string) bool {
	return strings.Contains(strings.ToLower(mailbox+" "+name), strings.ToLower(v.Query))
}

// lives puts the subscriptions on their time lines, what needs somebody first, then those that end soonest.
func (v *view) lives(all bool) {
	for i := range v.Subscriptions {
		s := &v.Subscriptions[i]
		if v.matches(s.Mailbox, s.Folder) {
			v.Lives = append(v.Lives, newLife(s, v.At))
		}
	}
	slices.SortStableFunc(v.Lives, func(a, b life) int {
		return cmp.Or(cmp.Compare(rank[a.Mark], rank[b.Mark]), a.ExpiresAt.Compare(b.ExpiresAt), cmp.Compare(a.Mailbox, b.Mailbox), cmp.Compare(a.Folder, b.Folder))
	})
	if !all && len(v.Lives) > shownRows {
		v.HiddenLives, v.Lives = len(v.Lives)-shownRows, v.Lives[:shownRows]
	}
}

func newLife(s *Subscription, now time.Time) life {
	l := life{Subscription: s, Mark: "good", Sign: "✓", Lapsed: !now.Before(s.ExpiresAt)}
	switch {
	case l.Lapsed:
		l.Mark, l.Sign = "bad", "✗"
	case s.Failures > 0:
		l.Mark, l.Sign = "warn", "!"
	}
	begin := s.CreatedAt
	if len(s.Renewals) > 0 && s.Renewals[0].After(begin) && now.Sub(begin) > 4*s.ExpiresAt.Sub(now) {
		begin = s.Renewals[0] // an old one: what it lives from now on must be seen
	}
	end := s.ExpiresAt
	if now.After(end) {
		end = now
	}
	place := func(t time.Time) float64 {
		if !end.After(begin) {
			return 0
		}
		return float64(int(1000*min(1, max(0, float64(t.Sub(begin))/float64(end.Sub(begin)))))) / 10
	}
	l.Now = place(now)
	if s.RenewAt.After(now) && s.RenewAt.Before(end) {
		l.Next = place(s.RenewAt)
	}
	for _, t := range s.Renewals {
		if !t.Before(begin) {
			l.Ticks = append(l.Ticks, place(t))
		}
	}
	l.Text = fmt.Sprintf("Subscription of %s %s: made %s ago, renewed %d times, next renewal %s, expires %s",
		s.Mailbox, s.Folder, short(now.Sub(s.CreatedAt)), len(s.Renewals), ahead(s.RenewAt.Sub(now)), ahead(s.ExpiresAt.Sub(now)))
	return l
}

// rank orders rows: what needs somebody first.
var rank = map[string]int{"bad": 0, "warn": 1, "good": 2}

// feeds lists folders and calendars, what needs somebody first, then by name, so that rows stay where they are.
func (v *view) feeds(all bool) {
	for i := range v.Feeds {
		if f := &v.Feeds[i]; v.matches(f.Mailbox, f.Name()) {
			v.Shown = append(v.Shown, newFeedRow(f, v.At))
		}
	}
	slices.SortStableFunc(v.Shown, func(a, b feedRow) int {
		return cmp.Or(cmp.Compare(rank[a.Mark], rank[b.Mark]), cmp.Compare(a.Mailbox, b.Mailbox), cmp.Compare(a.Name(), b.Name()))
	})
	if !all && len(v.Shown) > shownRows {
		v.HiddenFeeds, v.Shown = len(v.Shown)-shownRows, v.Shown[:shownRows]
	}
}

func newFeedRow(f *Feed, now time.Time) feedRow {
	row := feedRow{Feed: f, Mark: "good", Sign: "✓", Share: "push has announced nothing yet"}
	switch {
	case f.Error != "" || now.Sub(f.RoundAt) > 2*f.Interval+grace:
		row.Mark, row.Sign = "bad", "✗"
	case now.Sub(f.RoundAt) > f.Interval+grace:
		row.Mark, row.Sign = "warn", "!"
	}
	if n := f.Announced + f.Missed; n > 0 {
		row.Share = fmt.Sprintf("push announced %d of %d (%d %%)", f.Announced, n, 100*f.Announced/n)
	}
	if f.Reason != "" || f.BaselinedAt.IsZero() {
		row.Progress = fmt.Sprintf("%s: %d items in %d pages so far", cmp.Or(f.Reason, "first reading"), f.Items, f.Pages)
	}
	return row
}

// rate draws the last hour.
func (v *view) rate() {
	var sum, most uint64
	for _, n := range v.Rate {
		sum, most = sum+n, max(most, n)
	}
	for i, n := range v.Rate {
		if n > 0 {
			h := max(2, float64(56*n/most))
			v.Bars = append(v.Bars, bar{X: float64(i) * 100 / rateMinutes, Y: 59 - h, H: h})
		}
	}
	v.RateText = fmt.Sprintf("%d events in the last hour, at most %d in a minute", sum, most)
}
