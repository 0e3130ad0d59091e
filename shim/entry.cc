// The shim enters containers when it serves: no action, no question. See runtime/entry.cc, which
// calls this before the C library starts, for what may be used here.
namespace {

inline bool Equal(const char* a, const char* b) {
  while (*a != '\0' && *a == *b) ++a, ++b;
  return *a == *b;
}

}  // namespace

extern "C" __attribute__((used, no_stack_protector)) bool GantryEntersContainer(char** words) {
  const char* last = "";
  for (; *words != nullptr; ++words) {
    last = *words;
    if (Equal(last, "-v") || Equal(last, "-info") || Equal(last, "-failpoints")) return false;
  }
  return !Equal(last, "start") && !Equal(last, "delete");
}
