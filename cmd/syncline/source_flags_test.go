package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	accessv1 "github.com/seed0419d559/syncline/gen/syncline/access/v1"
	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
)

// TestSourceFlags sends what is in the files, and refuses secrets on the command line.
func TestSourceFlags(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	token, ca, cert, key := file("token", "syncline_abc\n"), file("ca", "CA"), file("cert", "CERT"), file("key", "KEY")
	for name, test := range map[string]struct {
		environment []string
		args        []string
		want        *applierv1.ReplicationSpec // nil for a refusal
		text        string
	}{
		"nothing":     {nil, nil, &applierv1.ReplicationSpec{}, ""},
		"token":       {nil, []string{"--source-token-file", token}, &applierv1.ReplicationSpec{Token: "syncline_abc"}, ""},
		"variable":    {[]string{"SYNCLINE_SOURCE_TOKEN=x"}, nil, &applierv1.ReplicationSpec{Token: "x"}, ""},
		"tls":         {nil, []string{"--source-tls"}, &applierv1.ReplicationSpec{Tls: &accessv1.ClientTLS{}}, ""},
		"certificate": {nil, []string{"--source-tls-ca", ca, "--source-tls-cert", cert, "--source-tls-key", key, "--source-tls-server-name", "db1"}, &applierv1.ReplicationSpec{Tls: &accessv1.ClientTLS{Ca: "CA", Certificate: "CERT", Key: "KEY", ServerName: "db1"}}, ""},
		"proxy":       {nil, []string{"--source-proxy", "socks5h://u:p@proxy:1080"}, &applierv1.ReplicationSpec{Proxy: "socks5h://u:p@proxy:1080"}, ""},
		"shown":       {nil, []string{"--source-token", "x"}, nil, "can be read by everybody"},
		"two":         {[]string{"SYNCLINE_SOURCE_TOKEN=x"}, []string{"--source-token-file", token}, nil, "both set"},
		"no file":     {nil, []string{"--source-tls-ca", ca + "x"}, nil, "--source-tls-ca: open"},
	} {
		t.Run(name, func(t *testing.T) {
			fake := &fakeApplier{}
			replica := serveFake(t, fake)
			args := append([]string{"replication", "create", "shop", "--source", "db1:7400", "--addr", replica}, test.args...)
			_, errOut, code := command(t, test.environment, args...)
			if test.want == nil {
				if code != exitWrongUse || !strings.Contains(errOut, test.text) || fake.created != nil {
					t.Errorf("exit code %d, %s, created %v", code, errOut, fake.created)
				}
				return
			}
			test.want.Source = "db1:7400"
			if code != exitDone || !proto.Equal(fake.created.GetSpec(), test.want) {
				t.Errorf("exit code %d, %s, created %v", code, errOut, fake.created)
			}
		})
	}
}
