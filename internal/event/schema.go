package event

import (
	"embed"
	"slices"
)

// Envelope is the name of the schema of a whole event: its CloudEvents attributes and its data.
const Envelope = "envelope"

//go:embed schema/*.v1.json
var schemaFiles embed.FS

// schemaNames lists the schemas: of the data of each area, and of the whole event.
var schemaNames = []string{AreaMail, AreaCalendar, AreaNotification, AreaConnection, AreaSubscription, AreaWatch, Envelope}

// Schema returns the JSON Schema (draft 2020-12) of the data of an area's events, or of the Envelope; ok is false when
// there is none of that name. Its $id is SchemaID(name). The caller owns the bytes.
func Schema(name string) (schema []byte, ok bool) {
	if !slices.Contains(schemaNames, name) {
		return nil, false
	}
	b, err := schemaFiles.ReadFile("schema/" + name + ".v1.json")
	return b, err == nil
}

// Schemas returns all schemas by name.
func Schemas() map[string][]byte {
	all := make(map[string][]byte, len(schemaNames))
	for _, name := range schemaNames {
		all[name], _ = Schema(name)
	}
	return all
}
