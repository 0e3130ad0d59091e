// When gantry-runtime protects itself before the C library starts; see entry.cc for what may be
// used here.
namespace {

inline bool Equal(const char* a, const char* b) {
  while (*a != '\0' && *a == *b) ++a, ++b;
  return *a == *b;
}

}  // namespace

// A container called "run" costs one re-execution too many, which is harmless.
extern "C" __attribute__((used, no_stack_protector)) bool GantryEntersContainer(char** words) {
  for (; *words != nullptr; ++words) {
    if (Equal(*words, "create") || Equal(*words, "run") || Equal(*words, "exec") ||
        Equal(*words, "mounts"))
      return true;
  }
  return false;
}
