package access

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
)

// tokenPrefix makes a token known for one, to people and to programs that look for secrets in the wrong place.
const tokenPrefix = "syncline_"

const tokenBytes = 32

// TokenHash is what is kept of a token. Tokens are random and long, so a plain hash cannot be turned back.
type TokenHash [sha256.Size]byte

// NewToken makes a token of 256 random bits.
func NewToken() string {
	random := make([]byte, tokenBytes)
	_, _ = rand.Read(random) // it never fails
	return tokenPrefix + base64.RawURLEncoding.EncodeToString(random)
}

// HashToken returns the hash of a token.
func HashToken(token string) TokenHash { return sha256.Sum256([]byte(token)) }
