package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"
)

// Source: "sock_diag(7)"; linux/inet_diag.h and linux/tcp.h of the kernel.
const (
	sockDiagByFamily   = 20
	netlinkSockDiag    = 4
	inetDiagInfo       = 2 // attribute with a struct tcp_info
	allStates          = 0xffffffff
	diagRequestBytes   = 56
	diagMessageBytes   = 72
	diagSourcePort     = 4
	diagPeerPort       = 6
	tcpInfoBytesAcked  = 120
	attributeHeadBytes = 4
)

// sent returns how many bytes the other end has acknowledged of each TCP connection of this machine's port, by the port of
// the other end.
func sent(port int) (map[int]float64, error) {
	fd, err := syscall.Socket(syscall.AF_NETLINK, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, netlinkSockDiag)
	if err != nil {
		return nil, fmt.Errorf("ask for TCP connections: %w", err)
	}
	defer func() { _ = syscall.Close(fd) }()
	request := make([]byte, syscall.SizeofNlMsghdr+diagRequestBytes)
	binary.NativeEndian.PutUint32(request, uint32(len(request)))
	binary.NativeEndian.PutUint16(request[4:], sockDiagByFamily)
	binary.NativeEndian.PutUint16(request[6:], syscall.NLM_F_REQUEST|syscall.NLM_F_DUMP)
	body := request[syscall.SizeofNlMsghdr:]
	body[0], body[1], body[2] = syscall.AF_INET, syscall.IPPROTO_TCP, 1<<(inetDiagInfo-1)
	binary.NativeEndian.PutUint32(body[4:], allStates)
	if err := syscall.Sendto(fd, request, 0, &syscall.SockaddrNetlink{Family: syscall.AF_NETLINK}); err != nil {
		return nil, fmt.Errorf("ask for TCP connections: %w", err)
	}
	found := map[int]float64{}
	buffer := make([]byte, 1<<16)
	for {
		n, _, err := syscall.Recvfrom(fd, buffer, 0)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read TCP connections: %w", err)
		}
		messages, err := syscall.ParseNetlinkMessage(buffer[:n])
		if err != nil {
			return nil, fmt.Errorf("read TCP connections: %w", err)
		}
		for _, m := range messages {
			switch m.Header.Type {
			case syscall.NLMSG_DONE:
				return found, nil
			case syscall.NLMSG_ERROR:
				return nil, errors.New("read TCP connections: the kernel refuses to tell")
			}
			if peer, bytes, ok := parseConnection(m.Data, port); ok {
				found[peer] = bytes
			}
		}
	}
}

// parseConnection reads a struct inet_diag_msg and the attributes behind it.
func parseConnection(data []byte, port int) (peer int, bytes float64, ok bool) {
	if len(data) < diagMessageBytes || int(binary.BigEndian.Uint16(data[diagSourcePort:])) != port {
		return 0, 0, false
	}
	peer = int(binary.BigEndian.Uint16(data[diagPeerPort:]))
	for rest := data[diagMessageBytes:]; len(rest) >= attributeHeadBytes; {
		length := int(binary.NativeEndian.Uint16(rest))
		if length < attributeHeadBytes || length > len(rest) {
			return 0, 0, false
		}
		value := rest[attributeHeadBytes:length]
		if binary.NativeEndian.Uint16(rest[2:]) == inetDiagInfo && len(value) >= tcpInfoBytesAcked+8 {
			return peer, float64(binary.NativeEndian.Uint64(value[tcpInfoBytesAcked:])), true
		}
		rest = rest[min(len(rest), (length+3)&^3):]
	}
	return 0, 0, false
}
