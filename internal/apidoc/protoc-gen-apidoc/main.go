// Command protoc-gen-apidoc writes the reference of the API, docs/api/README.md, from the comments of the protos and the HTTP rules.
// `make generate` runs it as a plugin of buf.
package main

import (
	"flag"

	"google.golang.org/protobuf/compiler/protogen"
	"google.golang.org/protobuf/types/pluginpb"

	"github.com/seed0419d559/syncline/internal/apidoc"
)

func main() {
	var flags flag.FlagSet
	rules := flags.String("rules", "", "file with the HTTP rules")
	protogen.Options{ParamFunc: flags.Set}.Run(func(plugin *protogen.Plugin) error {
		plugin.SupportedFeatures = uint64(pluginpb.CodeGeneratorResponse_FEATURE_PROTO3_OPTIONAL)
		paths, err := apidoc.ReadRules(*rules)
		if err != nil {
			return err
		}
		text, err := apidoc.Write(plugin.Files, paths)
		if err != nil {
			return err
		}
		_, err = plugin.NewGeneratedFile("README.md", "").Write(text)
		return err
	})
}
