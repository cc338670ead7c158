package demo

import (
	"fmt"
	"strings"
)

// tour tells how to look around: addresses and three commands.
func (d *demo) tour() string {
	var s strings.Builder
	for _, n := range d.nodes() {
		fmt.Fprintf(&s, "  %-10s %s   grpc %s   http://%s/metrics\n", n.name, n.url(), n.grpc, n.http)
	}
	first := d.replicas[0]
	fmt.Fprintf(&s, "  try:  %s status --addr %s\n", d.options.Binary, first.grpc)
	fmt.Fprintf(&s, "        %s follow --addr %s\n", d.options.Binary, d.primary.grpc)
	fmt.Fprintf(&s, "        psql '%s' -c 'SELECT count(*), max(id) FROM shop.orders'", first.url())
	return s.String()
}
