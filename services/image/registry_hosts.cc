#include "services/image/registry_hosts.h"

#include <sstream>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "lib/base/status.h"
#include "lib/base/text.h"
#include "lib/log/log.h"
#include "lib/sys/file.h"
#include "services/image/url.h"
#include "toml.hpp"

namespace gantry::image {
namespace {

constexpr size_t kMaxFileBytes = 1 << 20;
constexpr size_t kMaxHeaderBytes = 8 << 10;

// Hosts come out of image names and of redirects: they must not lead out of the directory.
bool IsDirectoryName(const std::string& host) {
  if (host.empty() || host.size() > 255 || host[0] == '.') return false;
  for (const char c : host) {
    if (!absl::ascii_isalnum(c) && !absl::StrContains(".-_:[]", absl::string_view(&c, 1))) {
      return false;
    }
  }
  return true;
}

absl::Status Wrong(const toml::value& value, absl::string_view problem) {
  return absl::InvalidArgumentError(absl::StrCat("line ", value.location().line(), ": ", problem));
}

// A text or a list of texts.
absl::StatusOr<std::vector<std::string>> Texts(const toml::value& value, absl::string_view key) {
  if (value.is_string()) {
    return std::vector<std::string>{value.as_string(std::nothrow).str};
  }
  if (!value.is_array()) return Wrong(value, absl::StrCat("'", key, "' is no text and no list"));
  std::vector<std::string> texts;
  for (const toml::value& element : value.as_array(std::nothrow)) {
    if (!element.is_string()) return Wrong(value, absl::StrCat("'", key, "' must hold texts"));
    texts.push_back(element.as_string(std::nothrow).str);
  }
  return texts;
}

std::string PathIn(const std::string& folder, const std::string& path) {
  return absl::StartsWith(path, "/") ? path : absl::StrCat(folder, "/", path);
}

absl::Status AddAuthority(const std::string& path, TlsSettings* tls) {
  ASSIGN_OR_RETURN(const std::string pem, sys::ReadFile(path, kMaxFileBytes));
  absl::StrAppend(&tls->ca_pem, pem, "\n");
  return absl::OkStatus();
}

// `client`: a file with both, [certificate, key], or a list of one such pair.
absl::Status ReadClient(const toml::value& value, const std::string& folder, TlsSettings* tls) {
  const toml::value* pair = &value;
  if (value.is_array() && !value.as_array(std::nothrow).empty() &&
      value.as_array(std::nothrow)[0].is_array()) {
    if (value.as_array(std::nothrow).size() > 1) {
      return Wrong(value, "'client' has several pairs; one can be shown");
    }
    pair = &value.as_array(std::nothrow)[0];
  }
  ASSIGN_OR_RETURN(const std::vector<std::string> paths, Texts(*pair, "client"));
  if (paths.empty() || paths.size() > 2 || paths[0].empty()) {
    return Wrong(value, "'client' must be a certificate, or a certificate and its key");
  }
  tls->client_certificate = PathIn(folder, paths[0]);
  tls->client_key = paths.size() == 2 && !paths[1].empty() ? PathIn(folder, paths[1]) : "";
  return absl::OkStatus();
}

absl::Status ReadHeaders(const toml::value& table, std::vector<std::string>* headers) {
  if (!table.is_table()) return Wrong(table, "'header' must be a table");
  for (const auto& [name, value] : table.as_table(std::nothrow)) {
    ASSIGN_OR_RETURN(const std::vector<std::string> texts, Texts(value, "header"));
    for (const std::string& text : texts) {
      const std::string line = absl::StrCat(name, ": ", text);
      if (line.size() > kMaxHeaderBytes || absl::StrContains(line, "\n") ||
          absl::StrContains(line, "\r") || absl::StrContains(name, ":")) {
        return Wrong(value, absl::StrCat("the header '", EscapeForTerminal(name), "' is none"));
      }
      headers->push_back(line);
    }
  }
  return absl::OkStatus();
}

// The keys that stand at the top and in a table of one host alike.
absl::Status ReadTable(const toml::value& table, const std::string& folder,
                       HostSettings* settings) {
  for (const auto& [key, value] : table.as_table(std::nothrow)) {
    if (key == "ca") {
      ASSIGN_OR_RETURN(const std::vector<std::string> paths, Texts(value, key));
      for (const std::string& path : paths) {
        RETURN_IF_ERROR(AddAuthority(PathIn(folder, path), &settings->tls));
      }
    } else if (key == "client") {
      RETURN_IF_ERROR(ReadClient(value, folder, &settings->tls));
    } else if (key == "skip_verify") {
      if (!value.is_boolean()) return Wrong(value, "'skip_verify' must be true or false");
      settings->tls.skip_verify = value.as_boolean(std::nothrow);
    } else if (key == "header") {
      RETURN_IF_ERROR(ReadHeaders(value, &settings->headers));
    } else if (key == "server") {
      if (!value.is_string()) return Wrong(value, "'server' must be a text");
      settings->server = value.as_string(std::nothrow).str;
    } else if (key != "host" && key != "capabilities" && key != "override_path") {
      return Wrong(value, absl::StrCat("unknown key '", EscapeForTerminal(key), "'"));
    }
  }
  return absl::OkStatus();
}

absl::Status NormaliseServer(HostSettings* settings) {
  if (settings->server.empty()) return absl::OkStatus();
  if (!absl::StrContains(settings->server, "://")) {
    settings->server = absl::StrCat("https://", settings->server);
  }
  ASSIGN_OR_RETURN(const UrlParts parts, SplitUrl(settings->server));
  if (parts.path != "/" && parts.path != "") {
    return absl::InvalidArgumentError(
        absl::StrCat("'server' has the path '", EscapeForTerminal(parts.path), "'; name a host"));
  }
  settings->server = parts.Origin();
  return absl::OkStatus();
}

// Docker's form of the same.
absl::StatusOr<HostSettings> LoadDockerForm(const std::string& folder) {
  HostSettings settings;
  ASSIGN_OR_RETURN(const std::vector<std::string> names, sys::ListDirectory(folder));
  for (const std::string& name : names) {
    const std::string path = absl::StrCat(folder, "/", name);
    if (absl::EndsWith(name, ".crt")) RETURN_IF_ERROR(AddAuthority(path, &settings.tls));
    if (!absl::EndsWith(name, ".cert")) continue;
    settings.tls.client_certificate = path;
    settings.tls.client_key = absl::StrCat(path.substr(0, path.size() - 5), ".key");
    if (!sys::Exists(settings.tls.client_key)) {
      return absl::NotFoundError(
          absl::StrCat("'", path, "' has no key beside it: '", settings.tls.client_key, "'"));
    }
  }
  return settings;
}

absl::StatusOr<toml::value> ParseToml(absl::string_view text) {
  // toml11 3.7.1 reads past its buffer when a quoted key is not UTF-8.
  if (!IsPlainText(text)) return absl::InvalidArgumentError("it is not plain UTF-8 text");
  std::istringstream stream{std::string(text)};
  // toml11 reports by exception only; it stops here.
  try {
    return toml::parse(stream, "hosts.toml");
  } catch (const std::exception& error) {
    return absl::InvalidArgumentError(absl::string_view(error.what()));
  }
}

}  // namespace

absl::StatusOr<HostSettings> ParseHostSettings(absl::string_view text, const std::string& folder) {
  ASSIGN_OR_RETURN(const toml::value root, ParseToml(text));
  HostSettings settings;
  RETURN_IF_ERROR(ReadTable(root, folder, &settings));
  RETURN_IF_ERROR(NormaliseServer(&settings));
  const auto& top = root.as_table(std::nothrow);
  const auto hosts = top.find("host");
  if (hosts == top.end()) return settings;
  if (!hosts->second.is_table()) return Wrong(hosts->second, "'host' must hold tables");
  for (const auto& [url, table] : hosts->second.as_table(std::nothrow)) {
    if (!table.is_table()) return Wrong(table, "'host' must hold tables");
    HostSettings named;
    named.server = url;
    RETURN_IF_ERROR(NormaliseServer(&named));
    if (!settings.server.empty() && named.server == settings.server) {
      RETURN_IF_ERROR(ReadTable(table, folder, &settings));
    } else {
      log::Debug("a mirror is configured; the registry itself is asked", {{"mirror", url}});
    }
  }
  return settings;
}

absl::StatusOr<HostSettings> LoadHostSettings(const std::string& directory,
                                              const std::string& host) {
  if (directory.empty() || !IsDirectoryName(host)) return HostSettings();
  // As containerd writes ports where ':' is no good in file names.
  std::string without_colon = host;
  const size_t colon = host.rfind(':');
  if (colon != std::string::npos && !absl::EndsWith(host, "]")) {
    without_colon = absl::StrCat(host.substr(0, colon), "_", host.substr(colon + 1), "_");
  }
  for (const std::string& name : {host, without_colon, std::string("_default")}) {
    const std::string folder = absl::StrCat(directory, "/", name);
    if (!sys::Exists(folder)) continue;
    const std::string file = folder + "/hosts.toml";
    absl::StatusOr<std::string> text = sys::ReadFile(file, kMaxFileBytes);
    if (absl::IsNotFound(text.status())) return LoadDockerForm(folder);
    RETURN_IF_ERROR(text.status());
    return Annotate(ParseHostSettings(*text, folder), absl::StrCat("read '", file, "'"));
  }
  return HostSettings();
}

}  // namespace gantry::image
