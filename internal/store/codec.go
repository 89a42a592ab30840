package store

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// seal puts a CRC-32C before a value: bbolt itself returns a flipped bit without a word.
func seal(payload []byte) []byte {
	out := make([]byte, 4, 4+len(payload))
	binary.BigEndian.PutUint32(out, crc32.Checksum(payload, castagnoli))
	return append(out, payload...)
}

// unseal checks and strips the checksum. The result is valid as long as v is.
func unseal(v []byte) ([]byte, error) {
	if len(v) < 4 || binary.BigEndian.Uint32(v) != crc32.Checksum(v[4:], castagnoli) {
		return nil, fmt.Errorf("%w: checksum of a value does not match", ErrDamaged)
	}
	return v[4:], nil
}

func encode(v any) ([]byte, error) {
	b, err := json.Marshal(v, jsontext.AllowInvalidUTF8(true)) // a stray byte becomes U+FFFD; refusing would lose the record
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
