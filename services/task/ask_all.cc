#include "services/task/ask_all.h"

#include <memory>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace gantry::task {
namespace {

constexpr absl::Duration kPatience = absl::Seconds(3);

// Answers of many shims, in the order of the questions. Thread-safe.
class Gathering {
 public:
  using Answers = std::vector<absl::StatusOr<std::string>>;

  Gathering(size_t count, std::function<void(Answers)> done)
      : left_(count), answers_(count, absl::UnknownError("not answered")), done_(std::move(done)) {}

  void Put(size_t index, absl::StatusOr<std::string> answer) {
    Answers all;
    {
      absl::MutexLock lock(&mutex_);
      answers_[index] = std::move(answer);
      if (--left_ > 0) return;
      all = std::move(answers_);
    }
    done_(std::move(all));
  }

 private:
  absl::Mutex mutex_;
  size_t left_ ABSL_GUARDED_BY(mutex_);
  Answers answers_ ABSL_GUARDED_BY(mutex_);
  const std::function<void(Answers)> done_;
};

}  // namespace

void AskAll(TaskSupervisor& supervisor, const std::vector<TaskName>& names,
            const std::string& method,
            std::function<void(std::vector<absl::StatusOr<std::string>>)> done) {
  if (names.empty()) return done({});
  // Shared by the answers, the last of which completes it.
  auto gathering = std::make_shared<Gathering>(names.size(), std::move(done));
  for (size_t i = 0; i < names.size(); ++i) {
    // State, Stats and their like all keep the id in field 1 and need nothing else.
    containerd::task::v2::StateRequest request;
    request.set_id(names[i].id);
    supervisor.Call(names[i].ns, names[i].id, method, request, kPatience,
                    [gathering, i](absl::StatusOr<std::string> answer) {
                      gathering->Put(i, std::move(answer));
                    });
  }
}

}  // namespace gantry::task
