package delta

import (
	"context"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/triggerd/triggerd/internal/event"
	"github.com/triggerd/triggerd/internal/graph"
	"github.com/triggerd/triggerd/internal/store"
)

// instant is a Graph that answers at once with pages made beforehand, so that a benchmark measures triggerd alone.
type instant struct {
	Graph   // what is not read here
	folders []graph.Folder
	pages   []graph.Page // the nth page answers the link "n"; a first request is answered by page 0
	last    string
}

func (g *instant) MessagesDelta(_ context.Context, r graph.DeltaRequest) (graph.Page, error) {
	n := 0
	if r.Link != "" {
		if _, err := fmt.Sscanf(r.Link, "page %d", &n); err != nil {
			return graph.Page{Delta: r.Link}, nil
		}
	}
	p := g.pages[n]
	if n+1 < len(g.pages) {
		p.Next = fmt.Sprintf("page %d", n+1)
	} else {
		p.Delta = g.last
	}
	return p, nil
}

func (g *instant) ListMessages(context.Context, graph.ListRequest) (graph.Page, error) {
	return graph.Page{}, nil
}

func (g *instant) Message(context.Context, string, string, []string) (graph.Item, error) {
	return graph.Item{}, graph.ErrNotFound
}

func (g *instant) Folder(_ context.Context, _, name string) (graph.Folder, error) {
	if name == "inbox" {
		return g.folders[0], nil
	}
	return graph.Folder{}, graph.ErrNotFound
}

func (g *instant) Folders(context.Context, string) ([]graph.Folder, error) { return g.folders, nil }

func page(first, n int, at time.Time) (p graph.Page) {
	for i := first; i < first+n; i++ {
		id := fmt.Sprintf("AAMkADJmNWUwNzZlLWMxNWQtNGNkMy1iNmY4LWJiOTBkYjk5YjVlYgBGAAAAAAC6hwbZVh5T6nLJ1FvBfvIBwBZbQVR_TVZ%08dAAA=", i)
		raw := fmt.Sprintf(`{"@odata.type":"#microsoft.graph.message","@odata.etag":"W/\"CQAAABYAAABZbQVR+TVZTLodSM/vZvBeAAB3%06dA\"","id":%q,`+
			`"createdDateTime":%q,"lastModifiedDateTime":%q,"receivedDateTime":%q,"sentDateTime":%q,"hasAttachments":false,"internetMessageId":"<%d@mail.example.com>",`+
			`"subject":"Quarterly figures for review","importance":"normal","parentFolderId":"inboxid","conversationId":"AAQkADOUpag6yWs=","isRead":false,"isDraft":false,`+
			`"webLink":"https://outlook.office365.com/owa/?ItemID=AAMkADMGAAA&exvsurl=1&viewmodel=ReadMessageItem","categories":[],`+
			`"sender":{"emailAddress":{"name":"Adele Vance","address":"adelev@contoso.com"}},"from":{"emailAddress":{"name":"Adele Vance","address":"adelev@contoso.com"}},`+
			`"toRecipients":[{"emailAddress":{"name":"Alex Wilber","address":"alexw@contoso.com"}}],"ccRecipients":[],"bccRecipients":[],"replyTo":[],"flag":{"flagStatus":"notFlagged"}}`,
			i%1000000, id, at.Format(time.RFC3339), at.Format(time.RFC3339), at.Format(time.RFC3339), at.Format(time.RFC3339), i)
		p.Items = append(p.Items, graph.Item{ID: id, Raw: jsontext.Value(raw)})
	}
	return p
}

func benchRoom(b testing.TB, g Graph) (*Room, *store.Store) {
	st, err := store.Open(b.TempDir(), store.Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { st.Close() })
	r, err := New(st, Options{
		Graphs: map[string]Graph{"c": g}, Poll: time.Hour, Sweep: time.Hour,
		Targets: []Target{{Connection: "c", Identity: func() (string, string) { return "t", "" }, Address: "a@example.com", Watches: []Watch{{
			Name: "w", Token: "a", Folders: []FolderRef{{Name: "inbox"}}, Events: event.MailEvents, Content: event.ContentEnvelope,
		}}}},
	})
	if err != nil {
		b.Fatal(err)
	}
	r.mailboxes[0].refresh(b.Context())
	if len(r.feeds) != 1 {
		b.Fatalf("feeds = %d", len(r.feeds))
	}
	return r, st
}

// round runs one round of the only feed to its end.
func (r *Room) roundOnce(b testing.TB) {
	for _, f := range r.feeds {
		f.begun = time.Time{}
		f.run(b.Context())
		if f.tries > 0 {
			b.Fatal("round failed")
		}
	}
}

// BenchmarkRound measures pages of 1,000 new messages through merge, naming, dedupe and outbox, all durable.
func BenchmarkRound(b *testing.B) {
	g := &instant{folders: []graph.Folder{{ID: "inboxid", Name: "Inbox"}}, pages: []graph.Page{{}}, last: "page 0"}
	r, _ := benchRoom(b, g)
	r.roundOnce(b)
	first := 0
	for b.Loop() {
		b.StopTimer()
		g.pages = nil
		for range 10 {
			g.pages = append(g.pages, page(first, 1000, time.Now().Add(time.Minute)))
			first += 1000
		}
		b.StartTimer()
		r.roundOnce(b)
	}
	b.ReportMetric(float64(10_000*b.N)/b.Elapsed().Seconds(), "items/s")
}

// BenchmarkBaseline measures the first enumeration of a big folder, which publishes nothing, and the memory it takes.
func BenchmarkBaseline(b *testing.B) {
	const items = 200_000
	old := time.Now().Add(-24 * time.Hour)
	for b.Loop() {
		g := &generated{instant: instant{folders: []graph.Folder{{ID: "inboxid", Name: "Inbox"}}, last: "done"}, n: items, at: old}
		r, _ := benchRoom(b, g)
		r.roundOnce(b)
		runtime.GC()
	}
	b.ReportMetric(float64(items*b.N)/b.Elapsed().Seconds(), "items/s")
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	b.ReportMetric(float64(m.Sys)/(1<<20), "MiB-sys")
}

// generated makes its pages when they are asked for, so that they take no memory.
type generated struct {
	instant
	n  int
	at time.Time
}

func (g *generated) MessagesDelta(_ context.Context, r graph.DeltaRequest) (graph.Page, error) {
	n := 0
	fmt.Sscanf(r.Link, "page %d", &n)
	p := page(n*1000, 1000, g.at)
	if (n+1)*1000 < g.n {
		p.Next = fmt.Sprintf("page %d", n+1)
	} else {
		p.Delta = g.last
	}
	return p, nil
}
