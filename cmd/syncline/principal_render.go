package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	accessv1 "github.com/seed0419d559/syncline/gen/syncline/access/v1"
	"github.com/seed0419d559/syncline/internal/access"
)

// roleName is a role as people read it.
func roleName(r accessv1.Role) string {
	return strings.ToLower(strings.TrimPrefix(r.String(), "ROLE_"))
}

func renderPrincipals(out io.Writer, answer *accessv1.ListPrincipalsResponse) {
	if len(answer.GetPrincipals()) == 0 {
		fmt.Fprintln(out, "no principals; make the first with `syncline principal create NAME --role admin --postgres URL`")
		return
	}
	rows := [][]string{{"NAME", "ROLE", "READS", "CREDENTIAL"}}
	for _, p := range answer.GetPrincipals() {
		credential := "token"
		if at := p.GetTokenTime(); at != nil {
			credential += " of " + at.AsTime().UTC().Format("2006-01-02 15:04")
		}
		if p.GetCertificate() != "" {
			credential = p.GetCertificate()
		}
		rows = append(rows, []string{p.GetName(), roleName(p.GetRole()), reads(p), credential})
	}
	table(out, rows)
}

// reads is what a principal may read of rows.
func reads(p *accessv1.Principal) string {
	switch p.GetRole() {
	case accessv1.Role_ROLE_OPERATOR, accessv1.Role_ROLE_ADMIN:
		return "everything"
	case accessv1.Role_ROLE_REPLICATOR:
	default:
		return "no rows"
	}
	if len(p.GetGrants()) == 0 {
		return "nothing"
	}
	var list []string
	for _, g := range p.GetGrants() {
		list = append(list, access.Grant{Set: g.GetSet(), Parameters: maps.Clone(g.GetParameters())}.String())
	}
	slices.Sort(list)
	return strings.Join(list, " ")
}
