package auth

import (
	"encoding/json"
	"maps"
)

// maxClaims bounds a claims challenge, in bytes.
const maxClaims = 8 << 10

// capable tells Entra that challenges of continuous access evaluation are answered (cp1).
const capable = `{"access_token":{"xms_cc":{"values":["cp1"]}}}`

// withCapability merges a challenge (JSON; empty: none) with the capability. What cannot be read is left out: the
// challenge then comes again.
func withCapability(challenge string) string {
	if challenge == "" {
		return capable
	}
	var asked map[string]map[string]any
	if len(challenge) > maxClaims || json.Unmarshal([]byte(challenge), &asked) != nil || asked == nil {
		return capable
	}
	token := map[string]any{"xms_cc": map[string]any{"values": []string{"cp1"}}}
	maps.Copy(token, asked["access_token"])
	token["xms_cc"] = map[string]any{"values": []string{"cp1"}}
	asked["access_token"] = token
	merged, err := json.Marshal(asked)
	if err != nil {
		return capable
	}
	return string(merged)
}
