package store

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checksumSize is the room for a checksum before a value, in bytes.
const checksumSize = 4

// seal puts a CRC-32C before a value: bbolt itself returns a flipped bit without a word.
func seal(payload []byte) []byte {
	out := append(make([]byte, checksumSize, checksumSize+len(payload)), payload...)
	putChecksum(out)
	return out
}

// putChecksum seals a value that was written behind the room for its checksum.
func putChecksum(v []byte) {
	binary.BigEndian.PutUint32(v, crc32.Checksum(v[checksumSize:], castagnoli))
}

// unseal checks and strips the checksum. The result is valid as long as v is.
func unseal(v []byte) ([]byte, error) {
	if len(v) < checksumSize || binary.BigEndian.Uint32(v) != crc32.Checksum(v[checksumSize:], castagnoli) {
		return nil, fmt.Errorf("%w: checksum of a value does not match", ErrDamaged)
	}
	return v[checksumSize:], nil
}

func encode(v any, opts ...json.Options) ([]byte, error) {
	b, err := json.Marshal(v, append(opts, jsontext.AllowInvalidUTF8(true))...) // a stray byte becomes U+FFFD; refusing would lose the record
	if err != nil {
		return nil, err
	}
	return seal(b), nil
}

func decode(b []byte, v any) error {
	payload, err := unseal(b)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(payload, v); err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return nil
}

func key32(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }
func key64(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }
