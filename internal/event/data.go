package event

import "github.com/go-json-experiment/json/jsontext"

// Mailbox names the mailbox of an event inside its data.
type Mailbox struct {
	ID    string `json:"id,omitzero"`    // Graph's user id, where it is known
	Alias string `json:"alias,omitzero"` // as configured
	Kind  string `json:"kind,omitzero"`  // user or shared, where it is known
}

// Folder names a mail folder.
type Folder struct {
	ID            string `json:"id"`
	WellKnownName string `json:"wellKnownName,omitzero"`
	Path          string `json:"path,omitzero"` // display names from the top, joined by "/"
}

// Item names the changed item.
type Item struct {
	ID        string  `json:"id"`
	ChangeKey string  `json:"changeKey,omitzero"` // normalized
	Folder    *Folder `json:"folder,omitempty"`
	WebLink   string  `json:"webLink,omitzero"`
}

// FieldChange is one difference between two looks at an item. Old and New are nil, and absent from the JSON, where the
// value is not kept; an empty value is kept as what it is.
type FieldChange struct {
	Field string         `json:"field"`
	Old   jsontext.Value `json:"old,omitzero"`
	New   jsontext.Value `json:"new,omitzero"`
}

// Move tells where a moved item came from and went to. From is null when no watched folder held it before.
type Move struct {
	From *Folder `json:"from"`
	To   *Folder `json:"to"`
}

// Data is the payload of a mail event; of a notification event it holds Mailbox and Item only.
type Data struct {
	Mailbox Mailbox       `json:"mailbox"`
	Item    Item          `json:"item"`
	Changed []FieldChange `json:"changed,omitempty"`
	Moved   *Move         `json:"moved,omitempty"`
	Message *Message      `json:"message,omitempty"`
}
