// pull, images, inspect, tag, rmi, load; and registries that misbehave.

#include "absl/strings/str_cat.h"
#include "lib/sys/file.h"
#include "tests/support/suite_test.h"

namespace gantry {
namespace {

using ::gantry::testing::CommandResult;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::Not;

class ImagesTest : public testing::SuiteTest {};

TEST_F(ImagesTest, PullSaysItsStates) {
  ASSERT_OK(registry_->Push("states", 2, 1));
  const std::string name = registry_->address() + "/states:latest";
  const CommandResult pull = Ctl({"pull", name});
  EXPECT_EQ(pull.code, 0) << pull;
  for (const char* part : {"Pulling from states", "Already exists", "Pull complete",
                           "Digest: sha256:", "Status: Downloaded newer image for"}) {
    EXPECT_THAT(pull.out + pull.err, HasSubstr(part));
  }
  EXPECT_EQ(pull.out.find("Status: "), pull.out.rfind("Status: ")) << pull.out;
  const CommandResult again = Ctl({"pull", name});
  EXPECT_THAT(again.out + again.err, HasSubstr("Image is up to date"));
  EXPECT_EQ(Ctl({"rmi", name}).code, 0);
}

TEST_F(ImagesTest, ListInspectTagRemove) {
  const std::string table = Ctl({"images"}).out;
  EXPECT_THAT(table, ContainsRegex("^REPOSITORY +TAG +IMAGE ID +CREATED +SIZE"));
  EXPECT_THAT(table, HasSubstr(registry_->address() + "/busybox"));
  const std::string id = Inspect(Image(), "{{.Id}}");
  EXPECT_THAT(id, ContainsRegex("^sha256:[0-9a-f]{64}$"));
  EXPECT_EQ(Ctl({"tag", Image(), "mine:v1"}).code, 0);
  EXPECT_EQ(Inspect("mine:v1", "{{.Id}}"), id);
  EXPECT_EQ(Inspect(id.substr(7, 12), "{{.Id}}"), id);
  const CommandResult untag = Ctl({"rmi", "mine:v1"});
  EXPECT_THAT(untag.out, HasSubstr("Untagged: mine:v1"));
  EXPECT_THAT(untag.out, Not(HasSubstr("Deleted")));
  EXPECT_EQ(Inspect(Image(), "{{.Id}}"), id);
}

TEST_F(ImagesTest, ImagesInUseStay) {
  const std::string id = RunDetached({}, {"sleep", "600"});
  const CommandResult result = Ctl({"rmi", Image()});
  EXPECT_EQ(result.code, 1);
  EXPECT_THAT(result.err, HasSubstr(id.substr(0, 12)));
}

TEST_F(ImagesTest, RemovalFreesTheDisk) {
  ASSERT_OK(registry_->Push("large", 1, 8));
  const std::string name = registry_->address() + "/large:latest";
  auto used = [&] {
    return std::stol(testing::RunShell("du -sk " + suite_->state() + " | cut -f1").out);
  };
  const long before = used();
  ASSERT_EQ(Ctl({"pull", "-q", name}).code, 0);
  const long pulled = used();
  EXPECT_GT(pulled, before + 8 * 1024);
  EXPECT_THAT(Ctl({"rmi", name}).out, HasSubstr("Deleted: sha256:"));
  EXPECT_TRUE(Eventually(
      absl::StrCat("[ $(du -sk ", suite_->state(), " | cut -f1) -lt ", before + 2048, " ]")));
}

TEST_F(ImagesTest, UnknownNamesAndBadNames) {
  const CommandResult unknown = Ctl({"pull", registry_->address() + "/no/such"});
  EXPECT_EQ(unknown.code, 1);
  EXPECT_THAT(unknown.err, HasSubstr("no/such"));
  for (const char* bad : {"UPPER/case", "a b", "../x", "x@sha256:zz", ""}) {
    const CommandResult result = Ctl({"pull", bad});
    EXPECT_EQ(result.code, 1) << bad << result;
    EXPECT_FALSE(result.err.empty());
  }
  EXPECT_EQ(Ctl({"rmi", "nothing:here"}).code, 1);
  EXPECT_EQ(Ctl({"pull", "127.0.0.1:1/closed"}).code, 1);
}

TEST_F(ImagesTest, AWrongDigestIsRefusedAndLeavesNothing) {
  // Content no other test has: nothing of it may be here already.
  ASSERT_OK(registry_->Push("bad", 1, 3));
  // Flip a byte of the last layer in the registry's own store: same length, other digest.
  const CommandResult flipped = testing::RunShell(
      absl::StrCat("d=$(skopeo inspect --tls-verify=false docker://", registry_->address(),
                   "/bad:latest | grep -o 'sha256:[0-9a-f]*' | tail -1 | cut -d: -f2); "
                   "f=",
                   registry_->folder(),
                   "/data/docker/registry/v2/blobs/sha256/$(echo $d | cut -c1-2)/$d/data; "
                   "[ -f $f ] && printf 'XYZ' | dd of=$f bs=1 seek=5000 conv=notrunc 2>/dev/null"));
  ASSERT_EQ(flipped.code, 0) << flipped;
  const CommandResult pull = Ctl({"pull", registry_->address() + "/bad:latest"});
  EXPECT_EQ(pull.code, 1) << pull;
  EXPECT_THAT(pull.err, HasSubstr("digest"));
  EXPECT_NE(Ctl({"inspect", registry_->address() + "/bad:latest"}).code, 0);
}

TEST_F(ImagesTest, LoadReadsBothArchiveForms) {
  const std::string layout = suite_->root() + "/layout";
  const CommandResult made = testing::RunShell(
      testing::SourceDirectory() + "/deploy/make-image " + layout + " latest && cd " +
      suite_->root() +
      " && tar -C layout -cf oci.tar . && skopeo copy -q --insecure-policy oci:layout:latest "
      "docker-archive:docker.tar:loaded:docker");
  ASSERT_EQ(made.code, 0) << made;
  const CommandResult docker = Ctl({"load", "-i", suite_->root() + "/docker.tar"});
  EXPECT_EQ(docker.code, 0) << docker;
  EXPECT_THAT(docker.out, HasSubstr("Loaded image: loaded:docker"));
  EXPECT_EQ(Ctl({"run", "--rm", "loaded:docker", "echo", "hi"}).out, "hi\n");
  const CommandResult oci = Ctl({"load", "-i", suite_->root() + "/oci.tar"});
  EXPECT_EQ(oci.code, 0) << oci;
  const CommandResult junk =
      testing::RunShell("head -c 4096 /dev/urandom > " + suite_->root() + "/junk");
  EXPECT_EQ(Ctl({"load", "-i", suite_->root() + "/junk"}).code, 1);
  EXPECT_EQ(Ctl({"rmi", "loaded:docker"}).code, 0);
}

TEST_F(ImagesTest, CopyOnWriteLeavesTheImageAlone) {
  EXPECT_EQ(Run({}, {"sh", "-c", "rm -rf /etc; echo x > /bin/new"}).code, 0);
  EXPECT_EQ(Run({}, {"sh", "-c", "ls /etc/passwd; ls /bin/new 2>/dev/null | wc -l"}).out,
            "/etc/passwd\n0\n");
}

}  // namespace
}  // namespace gantry
