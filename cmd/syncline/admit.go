package main

import (
	"net/http"
	"strings"

	"github.com/seed0419d559/syncline/internal/access"
	"github.com/seed0419d559/syncline/internal/principals"
	"github.com/seed0419d559/syncline/internal/rest"
)

// admitPages lets metrics and profiles be read by those who may: metrics name tables and replications, and profiles show what is in
// memory. Health needs no credential, nor does the description of the API.
func admitPages(registry *principals.Registry, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var least access.Role
		switch path := r.URL.Path; {
		case path == "/metrics":
			least = access.Reader
		case strings.HasPrefix(path, "/debug/"):
			least = access.Admin
		}
		if least != "" {
			if _, err := registry.AdmitHTTP(r, least); err != nil {
				rest.WriteError(w, err)
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}
