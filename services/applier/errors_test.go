package applier

import "testing"

func TestWhoseFault(t *testing.T) {
	for code, want := range map[string]string{
		reasonNoSource: sideRemote, reasonSetChanged: sideRemote, "SET_UNKNOWN": sideRemote, "SET_UNDECIDABLE": sideRemote,
		reasonTarget: sideLocal, reasonMismatch: sideLocal, reasonSourceCredential: sideLocal, "": sideLocal,
	} {
		if got := (failure{code: code}).side(); got != want {
			t.Errorf("%s is %s, want %s", code, got, want)
		}
	}
}
