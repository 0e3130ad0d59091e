#include "ctl/template.h"

#include <string>

#include "lib/testing/status_matchers.h"

namespace gantry::ctl {
namespace {

using ::gantry::testing::Fails;

Value Data() {
  Value labels = Value::Object();
  labels.Set("tier", "web").Set("zone", "a");
  Value mount = Value::Object();
  mount.Set("Source", "/a").Set("RW", true);
  Value state = Value::Object();
  state.Set("Running", true).Set("ExitCode", 3);
  Value data = Value::Object();
  data.Set("Name", "web")
      .Set("State", state)
      .Set("Labels", labels)
      .Set("Mounts", Value::List().Add(mount))
      .Set("Args", Value::ListOf(std::vector<std::string>{"sleep", "600"}))
      .Set("Nothing", Value())
      .Set("Size", 1.5);
  return data;
}

std::string Render(absl::string_view text) {
  const auto parsed = Template::Parse(text);
  if (!parsed.ok()) return std::string(parsed.status().message());
  const auto out = parsed->Execute(Data());
  return out.ok() ? *out : std::string(out.status().message());
}

TEST(TemplateTest, PicksFields) {
  EXPECT_EQ(Render("{{.Name}} {{.State.Running}} {{ .State.ExitCode }}"), "web true 3");
  EXPECT_EQ(Render("{{.Labels.tier}} {{.Labels.missing}} {{.Nothing}} {{.Nothing.Deeper}}"),
            "web <no value> <no value> <no value>");
  EXPECT_EQ(Render("{{.Args}} {{.Labels}} {{.Size}}"), "[sleep 600] map[tier:web zone:a] 1.5");
  EXPECT_EQ(Render("{{(index .Mounts 0).Source}}"), "/a");
  EXPECT_EQ(Render("{{$.Name}}{{with .State}}{{.ExitCode}}{{$.Name}}{{end}}"), "web3web");
}

TEST(TemplateTest, CallsFunctions) {
  EXPECT_EQ(Render("{{json .Labels}} {{json .Name}} {{json .Nothing}}"),
            "{\"tier\":\"web\",\"zone\":\"a\"} \"web\" null");
  EXPECT_EQ(Render("{{index .Labels \"tier\"}}{{index .Labels \"none\"}}{{index .Args 1}}"),
            "web600");
  EXPECT_EQ(Render("{{join .Args \",\"}} {{len .Args}} {{upper .Name}} {{.Name | upper | lower}}"),
            "sleep,600 2 WEB web");
  EXPECT_EQ(
      Render("{{title \"a b\"}} {{split \"a,b\" \",\"}} {{slice .Name 1}} {{truncate .Name 2}}"),
      "A B [a b] eb we");
  EXPECT_EQ(Render("{{printf \"%-5s|%5d|%q|%v|%.2f|%x|%%\" .Name 7 .Name true 1.5 \"az\"}}"),
            "web  |    7|\"web\"|true|1.50|617a|%");
  EXPECT_EQ(Render("{{print 1 2 \"a\" 3}}{{println .Name 1}}"), "1 2a3web 1\n");
  EXPECT_EQ(Render("{{pad .Name 1 2}}|"), " web  |");
}

TEST(TemplateTest, Decides) {
  EXPECT_EQ(Render("{{if .State.Running}}up{{else}}down{{end}}"), "up");
  EXPECT_EQ(Render("{{if eq .Name \"db\" \"web\"}}1{{end}}{{if ne .Name \"web\"}}2{{end}}"), "1");
  EXPECT_EQ(Render("{{if gt .State.ExitCode 2}}a{{end}}{{if le .State.ExitCode 2}}b{{end}}"), "a");
  EXPECT_EQ(Render("{{if .Nothing}}a{{else if and .Name (not .Nothing)}}b{{else}}c{{end}}"), "b");
  EXPECT_EQ(Render("{{or .Nothing .Name}} {{and .Nothing .Name}}"), "web <no value>");
  EXPECT_EQ(Render("{{with .Nothing}}x{{else}}none{{end}}"), "none");
}

TEST(TemplateTest, Ranges) {
  EXPECT_EQ(Render("{{range .Args}}<{{.}}>{{end}}"), "<sleep><600>");
  EXPECT_EQ(Render("{{range $i, $a := .Args}}{{$i}}={{$a}};{{end}}"), "0=sleep;1=600;");
  EXPECT_EQ(Render("{{range $k, $v := .Labels}}{{$k}}={{$v}} {{end}}"), "tier=web zone=a ");
  EXPECT_EQ(Render("{{range .Nothing}}x{{else}}empty{{end}}"), "empty");
  EXPECT_EQ(Render("{{range .Args}}{{if eq . \"600\"}}{{break}}{{end}}{{.}}{{end}}"), "sleep");
  EXPECT_EQ(Render("{{range .Args}}{{if eq . \"sleep\"}}{{continue}}{{end}}{{.}}{{end}}"), "600");
  EXPECT_EQ(Render("{{range .Mounts}}{{.Source}}:{{.RW}}{{end}}"), "/a:true");
}

TEST(TemplateTest, KeepsVariablesInTheirScope) {
  EXPECT_EQ(Render("{{$x := .Name}}{{$x}}{{$x = \"db\"}}{{$x}}"), "webdb");
  EXPECT_EQ(Render("{{$x := 1}}{{if true}}{{$x = 2}}{{$y := 3}}{{end}}{{$x}}"), "2");
  EXPECT_EQ(Render("{{if true}}{{$y := 3}}{{end}}{{$y}}"), "template: there is no variable '$y'");
}

TEST(TemplateTest, TrimsAndComments) {
  EXPECT_EQ(Render("a  {{- .Name -}}  b"), "awebb");
  EXPECT_EQ(Render("a {{/* not {{ shown */}}b"), "a b");
  EXPECT_EQ(Render("{{\"}}\"}}{{`\\n`}}"), "}}\\n");
  EXPECT_EQ(Render("no action"), "no action");
}

TEST(TemplateTest, LabelIsAMethod) {
  Value row = Value::Object();
  row.Set("Labels", "tier=web").SetHidden("Label", Value::Object().Set("tier", "web"));
  const auto parsed = Template::Parse("{{.Label \"tier\"}}/{{.Label \"zone\"}}/{{.Labels}}");
  ASSERT_OK(parsed);
  EXPECT_EQ(*parsed->Execute(row), "web//tier=web");
}

TEST(TemplateTest, SaysWhatIsWrong) {
  EXPECT_EQ(Render("{{.Nmae}}"), "template: there is no field 'Nmae'");
  for (const char* bad :
       {"{{.Name", "{{}}", "{{if}}x{{end}}", "{{if .Name}}x", "{{end}}", "{{else}}",
        "{{frob .Name}}", "{{\"open}}", "{{(.Name}}", "{{.Name |}}", "{{$x := }}", "{{break}}",
        "{{1x}}", "{{.Name)}}", "{{range .Args}}{{else}}{{else}}{{end}}", "{{#}}", "{{else if}}"}) {
    EXPECT_THAT(Template::Parse(bad), Fails(absl::StatusCode::kInvalidArgument, "template")) << bad;
  }
  for (const char* bad : {"{{index .Args 9}}", "{{len 3}}", "{{join .Name}}", "{{lt .Name 3}}",
                          "{{printf \"%d\"}}", "{{printf \"%y\" 1}}", "{{.Name 1}}",
                          "{{range .Name}}{{end}}", "{{slice .Name 9}}", "{{split .Name \"\"}}"}) {
    const auto parsed = Template::Parse(bad);
    ASSERT_OK(parsed) << bad;
    EXPECT_THAT(parsed->Execute(Data()), Fails(absl::StatusCode::kInvalidArgument, "")) << bad;
  }
}

TEST(TemplateTest, HasLimits) {
  EXPECT_THAT(Template::Parse("{{" + std::string(10000, '(') + "}}"),
              Fails(absl::StatusCode::kInvalidArgument, "deeply"));
  std::string nested;
  for (int i = 0; i < 200; ++i) nested += "{{if .Name}}";
  EXPECT_THAT(Template::Parse(nested), Fails(absl::StatusCode::kInvalidArgument, "deeply"));
  Value many = Value::List();
  for (int i = 0; i < 300; ++i) many.Add(i);
  Value data = Value::Object();
  data.Set("L", many);
  const auto parsed = Template::Parse(
      "{{range $.L}}{{range $.L}}{{range $.L}}{{range $.L}}{{end}}{{end}}{{end}}{{end}}");
  ASSERT_OK(parsed);
  EXPECT_THAT(parsed->Execute(data), Fails(absl::StatusCode::kResourceExhausted, "does not end"));
}

TEST(ValueTest, PrintsJson) {
  Value value = Data();
  EXPECT_EQ(value.Find("State")->ToJson(), "{\"Running\":true,\"ExitCode\":3}");
  Value small = Value::Object();
  small.Set("a", Value::List()).Set("b", Value::List().Add(1).Add("x\"")).Set("c", Value::Object());
  EXPECT_EQ(
      small.ToIndentedJson(),
      "{\n    \"a\": [],\n    \"b\": [\n        1,\n        \"x\\\"\"\n    ],\n    \"c\": {}\n}");
}

}  // namespace
}  // namespace gantry::ctl
