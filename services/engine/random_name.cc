#include "services/engine/random_name.h"

#include <iterator>

#include "absl/random/random.h"
#include "absl/strings/str_cat.h"

namespace gantry::engine {
namespace {

constexpr const char* kAdjectives[] = {
    "able",   "amber",    "ardent",   "bold",     "brave",   "breezy",   "bright", "brisk",
    "calm",   "candid",   "careful",  "cheerful", "clear",   "clever",   "cosmic", "cosy",
    "crisp",  "curious",  "daring",   "deft",     "eager",   "earnest",  "easy",   "elegant",
    "fair",   "faithful", "fearless", "festive",  "fine",    "fleet",    "fluent", "fond",
    "frank",  "fresh",    "friendly", "frosty",   "gallant", "generous", "gentle", "glad",
    "golden", "graceful", "grand",    "handy",    "happy",   "hardy",    "hearty", "helpful",
    "honest", "hopeful",  "humble",   "jolly",    "jovial",  "keen",     "kind",   "lively",
    "loyal",  "lucid",    "lucky",    "mellow",   "merry",   "mighty",   "modest", "neat",
    "nimble", "noble",    "patient",  "placid",   "plucky",  "polite",   "proud",  "prudent",
    "quick",  "quiet",    "rapid",    "ready",    "serene",  "sharp",    "silent", "sincere",
    "sleek",  "smart",    "snug",     "solid",    "spry",    "stable",   "steady", "stellar",
    "stoic",  "sturdy",   "sunny",    "swift",    "tidy",    "trusty",   "upbeat", "valiant",
    "vivid",  "warm",     "wise",     "witty",    "zealous", "zesty"};

// People who built, measured, moved or computed things.
constexpr const char* kSurnames[] = {
    "abel",         "ada",     "agnesi",   "aiken",     "archimedes", "babbage",   "backus",
    "banach",       "bardeen", "bell",     "bernoulli", "bessemer",   "bohr",      "boole",
    "borg",         "bose",    "brunel",   "cantor",    "carson",     "cauchy",    "cerf",
    "church",       "codd",    "cohen",    "conway",    "curie",      "dahl",      "darwin",
    "davinci",      "dennis",  "diesel",   "dijkstra",  "dirac",      "earhart",   "easley",
    "edison",       "eiffel",  "einstein", "engelbart", "erdos",      "euclid",    "euler",
    "faraday",      "fermat",  "fermi",    "feynman",   "floyd",      "fourier",   "franklin",
    "galileo",      "galois",  "gauss",    "germain",   "godel",      "goldberg",  "hamilton",
    "hamming",      "hertz",   "hilbert",  "hoare",     "hopper",     "huffman",   "hypatia",
    "jacquard",     "johnson", "kahn",     "kepler",    "khwarizmi",  "kilby",     "knuth",
    "kovalevskaya", "lamarr",  "lamport",  "laplace",   "leibniz",    "liskov",    "lovelace",
    "maxwell",      "mclean",  "meitner",  "mendel",    "mirzakhani", "morse",     "napier",
    "naur",         "newton",  "nobel",    "noether",   "nygaard",    "ohm",       "pascal",
    "pasteur",      "perlman", "planck",   "poincare",  "ptolemy",    "ramanujan", "riemann",
    "ritchie",      "rubin",   "sammet",   "shannon",   "stroustrup", "tarjan",    "tesla",
    "thompson",     "turing",  "volta",    "watt",      "wiles",      "wilkes",    "wing",
    "wirth",        "wozniak", "wright",   "zuse"};

}  // namespace

std::string RandomName(int attempt) {
  absl::BitGen random;
  std::string name = absl::StrCat(kAdjectives[absl::Uniform(random, 0u, std::size(kAdjectives))],
                                  "_", kSurnames[absl::Uniform(random, 0u, std::size(kSurnames))]);
  if (attempt >= 2) absl::StrAppend(&name, absl::Uniform(random, 0, 10 << attempt / 4));
  return name;
}

}  // namespace gantry::engine
