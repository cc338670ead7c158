package pgserver

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
)

// Ports are taken from below the range that the kernel gives to outgoing connections. A port in that range can be lost
// to such a connection while the server is down, and a client that keeps dialling it can even end up connected to itself.
const (
	firstPort = 15000
	lastPort  = 31000
)

// ReservePort finds a free port on 127.0.0.1. The listener it returns holds the port against others who ask here, in any
// process, also while nobody listens on it; it is an abstract socket name, which the kernel frees with its process.
func ReservePort() (int, net.Listener, error) {
	last := lastPort
	if low := ephemeralLow(); low > firstPort+1000 && low <= last {
		last = low - 1
	}
	for range 1000 {
		port := firstPort + rand.IntN(last-firstPort+1)
		hold, err := net.Listen("unix", "@syncline-pgserver-port-"+strconv.Itoa(port))
		if err != nil {
			continue
		}
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			_ = hold.Close()
			continue
		}
		if err := l.Close(); err != nil {
			return 0, nil, errors.Join(err, hold.Close())
		}
		return port, hold, nil
	}
	return 0, nil, fmt.Errorf("find a free port between %d and %d: %w", firstPort, last, errors.New("all are taken"))
}

func ephemeralLow() int {
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		return 0
	}
	var low, high int
	if _, err := fmt.Sscan(string(text), &low, &high); err != nil {
		return 0
	}
	return low
}
