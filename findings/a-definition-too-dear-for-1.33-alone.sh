#!/usr/bin/env bash
# Kubernetes: a CustomResourceDefinition that 1.29 takes and 1.34 takes is refused by 1.32 and 1.33 for what its rule may cost.
#
# The schema bounds everything: a map of at most 64 entries, each of at most 32 characters. Where the values may be numbers or texts
# (`x-kubernetes-int-or-string`, as quantities are), 1.32 and 1.33 estimate what `isQuantity` costs by the size of a whole request, whatever
# `maxLength` says. 1.29 does not count the function yet, 1.34 counts the bound. So definitions that were tried on the newest release, or on
# the oldest and the newest, cannot be installed between them: `helm install` ends with "estimated rule cost exceeds budget". A check takes
# the code of each release. What helps is a smaller `maxProperties`, a rule for each map, or named keys in place of all of them.
#
# Needs Go. It builds the API server's own validation of definitions (k8s.io/apiextensions-apiserver) at four releases in a temporary
# folder, some minutes the first time, and starts nothing. Ends with 0 while it is so. Seen on 2026-11-30:
#
#   0.29.15: taken
#   0.32.13: estimated rule cost exceeds budget by factor of 2.0x
#   0.33.13: estimated rule cost exceeds budget by factor of 2.0x
#   0.34.4: taken
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/main.go" <<'GO'
package main

import (
	"context"
	"fmt"
	"strings"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/install"
	v1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

func main() {
	most, longest := int64(64), int64(32)
	object := func(name string, of v1.JSONSchemaProps) v1.JSONSchemaProps {
		return v1.JSONSchemaProps{Type: "object", Properties: map[string]v1.JSONSchemaProps{name: of}}
	}
	limits := v1.JSONSchemaProps{
		Type:                 "object",
		MaxProperties:        &most,
		AdditionalProperties: &v1.JSONSchemaPropsOrBool{Schema: &v1.JSONSchemaProps{XIntOrString: true, MaxLength: &longest}},
		XValidations:         v1.ValidationRules{{Rule: "self.all(k, isQuantity(self[k]))"}},
	}
	schema := object("spec", object("limits", limits))
	written := v1.CustomResourceDefinition{
		ObjectMeta: metav1.ObjectMeta{Name: "things.example.com"},
		Spec: v1.CustomResourceDefinitionSpec{
			Group: "example.com", Scope: v1.NamespaceScoped,
			Names: v1.CustomResourceDefinitionNames{Plural: "things", Singular: "thing", Kind: "Thing", ListKind: "ThingList"},
			Versions: []v1.CustomResourceDefinitionVersion{{
				Name: "v1", Served: true, Storage: true, Schema: &v1.CustomResourceValidation{OpenAPIV3Schema: &schema},
			}},
		},
	}
	scheme := runtime.NewScheme()
	install.Install(scheme)
	scheme.Default(&written)
	var read apiextensions.CustomResourceDefinition
	if err := scheme.Convert(&written, &read, nil); err != nil {
		panic(err)
	}
	told := validation.ValidateCustomResourceDefinition(context.Background(), &read)
	if len(told) == 0 {
		fmt.Println("taken")
	}
	for _, one := range told {
		words, _, _ := strings.Cut(one.Detail, " (")
		fmt.Println(words)
	}
}
GO
for version in 0.29.15 0.32.13 0.33.13 0.34.4; do
  mkdir "$folder/$version"
  cp "$folder/main.go" "$folder/$version/"
  cd "$folder/$version"
  go mod init example.com/definition >log 2>&1
  go get "k8s.io/apiextensions-apiserver@v$version" >>log 2>&1
  go mod tidy >>log 2>&1
  go build -o check . >>log 2>&1 || { cat log >&2 && exit 2; }
  echo "$version: $(./check)"
done | tee "$folder/seen"
diff - "$folder/seen" <<'SEEN'
0.29.15: taken
0.32.13: estimated rule cost exceeds budget by factor of 2.0x
0.33.13: estimated rule cost exceeds budget by factor of 2.0x
0.34.4: taken
SEEN
