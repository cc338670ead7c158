package compose

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// root is the repository.
const root = "../.."

// service is one service of docker-compose.yml, as far as the test plays Docker's part.
type service struct {
	name        string
	image       string
	command     []string
	environment map[string]string
	mounts      []mount
	health      []string          // command, nil for none
	dependsOn   map[string]string // condition by service
	database    bool              // a PostgreSQL server; otherwise a process of ours
}

type mount struct{ from, to string }

// The conditions of depends_on that the file uses.
const healthy = "service_healthy"

// file is what docker-compose.yml and Dockerfile say.
type file struct {
	services map[string]*service
	volumes  []string
	image    map[string]string // ENV of the Dockerfile
	program  string            // its ENTRYPOINT
}

func readFile(t testing.TB) file {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "docker-compose.yml"))
	if err != nil {
		t.Fatal(err)
	}
	value, err := readYAML(string(text))
	if err != nil {
		t.Fatalf("docker-compose.yml: %v", err)
	}
	top := value.(map[string]any)
	f := file{services: map[string]*service{}, volumes: slices.Collect(maps.Keys(top["volumes"].(map[string]any)))}
	for name, value := range top["services"].(map[string]any) {
		f.services[name] = readService(t, name, value.(map[string]any))
	}
	f.readDockerfile(t)
	return f
}

func readService(t testing.TB, name string, value map[string]any) *service {
	t.Helper()
	s := &service{name: name, environment: map[string]string{}, dependsOn: map[string]string{}}
	for key, value := range value {
		switch key {
		case "image":
			s.image = value.(string)
			s.database = strings.HasPrefix(s.image, "postgres:")
		case "command":
			s.command = texts(value)
		case "environment":
			for name, value := range value.(map[string]any) {
				s.environment[name] = value.(string)
			}
		case "volumes":
			for _, text := range texts(value) {
				parts := strings.Split(text, ":")
				s.mounts = append(s.mounts, mount{parts[0], parts[1]})
			}
		case "healthcheck":
			if test, ok := value.(map[string]any)["test"]; ok {
				s.health = texts(test)
			}
		case "depends_on":
			for other, value := range value.(map[string]any) {
				s.dependsOn[other] = value.(map[string]any)["condition"].(string)
			}
		case "build", "ports", "restart":
		default:
			t.Errorf("service %s: the test does not know the key %s", name, key)
		}
	}
	return s
}

func texts(value any) []string {
	var list []string
	for _, item := range value.([]any) {
		list = append(list, item.(string))
	}
	return list
}

// readDockerfile takes the environment and the entry point of the image's last stage.
func (f *file) readDockerfile(t testing.TB) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	f.image = map[string]string{}
	for line := range strings.SplitSeq(string(text), "\n") {
		word, rest, _ := strings.Cut(line, " ")
		switch word {
		case "FROM":
			clear(f.image)
		case "ENV":
			for _, pair := range strings.Fields(rest) {
				name, value, _ := strings.Cut(pair, "=")
				f.image[name] = value
			}
		case "ENTRYPOINT":
			if _, err := fmt.Sscanf(rest, "[%q]", &f.program); err != nil {
				t.Fatalf("Dockerfile: ENTRYPOINT %s: %v", rest, err)
			}
		}
	}
}

// order lists the services so that each comes after those it depends on.
func (f file) order(t testing.TB) []*service {
	t.Helper()
	var list []*service
	state := map[string]int{} // 1 being placed, 2 placed
	var place func(name string)
	place = func(name string) {
		s := f.services[name]
		switch {
		case s == nil:
			t.Fatalf("a service depends on %s, and there is none", name)
		case state[name] == 1:
			t.Fatalf("service %s depends on itself", name)
		case state[name] == 2:
			return
		}
		state[name] = 1
		for _, other := range slices.Sorted(maps.Keys(s.dependsOn)) {
			place(other)
		}
		state[name] = 2
		list = append(list, s)
	}
	for _, name := range slices.Sorted(maps.Keys(f.services)) {
		place(name)
	}
	return list
}

// TestFile checks what can be checked without starting anything.
func TestFile(t *testing.T) {
	f := readFile(t)
	if f.program == "" || f.image["SYNCLINE_GRPC"] == "" {
		t.Errorf("Dockerfile: entry point %q, environment %v", f.program, f.image)
	}
	for _, s := range f.order(t) {
		for _, m := range s.mounts {
			if path, isFile := strings.CutPrefix(m.from, "./"); isFile {
				if _, err := os.Stat(filepath.Join(root, path)); err != nil {
					t.Errorf("service %s: %v", s.name, err)
				}
			} else if !slices.Contains(f.volumes, m.from) {
				t.Errorf("service %s: volume %s is not declared", s.name, m.from)
			}
		}
		for other, condition := range s.dependsOn {
			if condition != healthy || f.services[other].health == nil {
				t.Errorf("service %s: depends on %s being %s, which has the health check %q", s.name, other, condition, f.services[other].health)
			}
		}
		if len(s.health) > 0 && (s.health[0] != "CMD" || !s.database && s.health[1] != f.program) {
			t.Errorf("service %s: health check %q cannot run in the image", s.name, s.health)
		}
	}
}
