package postgres

import (
	"strings"
	"testing"
)

// TestSecretsAreNotShown parses connection strings with passwords of every kind, most of them not written as a URL wants it.
func TestSecretsAreNotShown(t *testing.T) {
	for give, want := range map[string]string{
		"postgres://u:hidden@h:1/d":                            "postgres://u:xxxxx@h:1/d",
		"postgres://u@h/d":                                     "postgres://u@h/d",
		"postgres://h:1/d":                                     "postgres://h:1/d",
		"postgres://u:hid@den@h:1/d":                           "postgres://u:xxxxx@h:1/d",
		"postgres://u:hid@den#hidden@h:1/d":                    "postgres://u:xxxxx@h:1/d",
		"postgres://u:hid/den@h:1/d":                           "postgres://u:xxxxx@h:1/d",
		"postgres://u:hid?den@h:1/d":                           "postgres://u:xxxxx@h:1/d",
		"postgres://u:hid%zzden@h:1/d":                         "postgres://u:xxxxx@h:1/d",
		"postgres://u:hid den@h:1/d":                           "postgres://u:xxxxx@h:1/d",
		"postgres://u:[hidden@h:1/d":                           "postgres://u:xxxxx@h:1/d",
		"postgres://u:hid:den@h:1/d?sslmode=require":           "postgres://u:xxxxx@h:1/d?sslmode=require",
		"postgres://h/d?user=u&password=hidden&sslmode=prefer": "postgres://h/d?user=u&password=xxxxx&sslmode=prefer",
		"host=h password=hidden dbname=d":                      "host=h password=xxxxx dbname=d",
		`host=h password='hid den\'hidden' dbname=d`:           "host=h password=xxxxx dbname=d",
		"host=h sslpassword = hidden":                          "host=h sslpassword=xxxxx",
	} {
		if got := Redact(give); got != want {
			t.Errorf("%s is shown as %s, want %s", give, got, want)
		}
		if _, err := Config(give, "test"); err != nil && strings.Contains(err.Error(), "den") {
			t.Errorf("%s: %v", give, err)
		}
	}
}

func TestWhatIsExpectedOfAURL(t *testing.T) {
	for _, bad := range []string{"postgres://u:p@w@h:1/d", "postgres://u:p/w@h:1/d", "postgres://u:p@w/x#y@h:1/d", "postgres://u:p@w/x@h:1/d", "postgres://u:p@w#x@h:1/d", "127.0.0.1:5432/d", "postgres://u:p%w@h/d"} {
		_, err := Config(bad, "test")
		if err == nil || !strings.Contains(err.Error(), "postgres://USER:PASSWORD@HOST:PORT/DATABASE") || !strings.Contains(err.Error(), "%40") {
			t.Errorf("%s: %v", bad, err)
		}
	}
}
