package suite

import "testing"

func TestRowsAreWhole(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range Rows {
		if seen[r.Name] {
			t.Errorf("there are two rows %q", r.Name)
		}
		seen[r.Name] = true
		if len(r.Metrics) == 0 || r.Section == "" || r.Title == "" {
			t.Errorf("row %q lacks metrics, a section or a title", r.Name)
		}
		hasBaseline := false
		for _, name := range r.Subjects {
			s := SubjectNamed(name)
			if s == nil {
				t.Errorf("row %q has the unknown subject %q", r.Name, name)
				continue
			}
			hasBaseline = hasBaseline || name == r.Baseline && s.Group == Baseline
		}
		if !hasBaseline {
			t.Errorf("row %q has no baseline", r.Name)
		}
	}
}

// Each subject has a reason for its configuration: a rival with a bad configuration would be a
// defect.
func TestEverySubjectIsArgued(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range Subjects {
		if seen[s.Name] {
			t.Errorf("there are two subjects %q", s.Name)
		}
		seen[s.Name] = true
		if s.What == "" || s.Config == "" || s.Program == nil || s.Form == "" {
			t.Errorf("subject %q says too little of itself", s.Name)
		}
	}
}
