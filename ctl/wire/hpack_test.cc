#include "ctl/wire/hpack.h"

#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "lib/testing/status_matchers.h"

namespace gantry::wire {
namespace {

using ::gantry::testing::Fails;
using ::testing::ElementsAre;

std::string Hex(absl::string_view digits) { return absl::HexStringToBytes(digits); }

// RFC 7541, C.4.
TEST(HuffmanTest, DecodesTheExamplesOfTheRfc) {
  EXPECT_EQ(*DecodeHuffman(Hex("f1e3c2e5f23a6ba0ab90f4ff")), "www.example.com");
  EXPECT_EQ(*DecodeHuffman(Hex("a8eb10649cbf")), "no-cache");
  EXPECT_EQ(*DecodeHuffman(Hex("25a849e95bb8e8b4bf")), "custom-value");
  EXPECT_EQ(*DecodeHuffman(Hex("d07abe941054d444a8200595040b8166e082a62d1bff")),
            "Mon, 21 Oct 2013 20:13:21 GMT");
  EXPECT_EQ(
      *DecodeHuffman(Hex("94e7821dd7f2e6c7b335dfdfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c0"
                         "03ed4ee5b1063d5007")),
      "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1");
}

TEST(HuffmanTest, LongCodesOfRareBytes) {
  // '\\' is 19 bits of 1111111111111110000 and then padding: 0xFFFE1F.
  EXPECT_EQ(*DecodeHuffman(Hex("fffe1f")), "\\");
  // Byte 0xF9 is 28 bits, 0xFFFFFFE, and four 1 bits.
  EXPECT_EQ(*DecodeHuffman(Hex("ffffffef")), "\xf9");
}

TEST(HuffmanTest, RefusesTheEndSymbolAndWrongPadding) {
  EXPECT_THAT(DecodeHuffman(Hex("fffffffc")),
              Fails(absl::StatusCode::kInvalidArgument, "end-of-string"));
  EXPECT_THAT(DecodeHuffman(Hex("1fff")), Fails(absl::StatusCode::kInvalidArgument, "padding"));
  // 'a' is 00011, then padding with zeros instead of ones.
  EXPECT_THAT(DecodeHuffman(Hex("18")), Fails(absl::StatusCode::kInvalidArgument, "padding"));
}

// RFC 7541, C.6: answers with Huffman and a table that evicts, though of 256 bytes there.
TEST(HeaderDecoderTest, DecodesTheResponsesOfTheRfc) {
  HeaderDecoder decoder;
  // The example's table has 256 bytes: said by a size update in front (0x3F 0xE1 0x01).
  const auto first = decoder.Decode(Hex(
      "3fe101"
      "488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b"
      "97c8e9ae82ae43d3"));
  ASSERT_OK(first);
  EXPECT_THAT(*first, ElementsAre(Header{":status", "302"}, Header{"cache-control", "private"},
                                  Header{"date", "Mon, 21 Oct 2013 20:13:21 GMT"},
                                  Header{"location", "https://www.example.com"}));
  const auto second = decoder.Decode(Hex("4883640effc1c0bf"));
  ASSERT_OK(second);
  EXPECT_THAT(*second, ElementsAre(Header{":status", "307"}, Header{"cache-control", "private"},
                                   Header{"date", "Mon, 21 Oct 2013 20:13:21 GMT"},
                                   Header{"location", "https://www.example.com"}));
  const auto third = decoder.Decode(
      Hex("88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7b335"
          "dfdfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007"));
  ASSERT_OK(third);
  EXPECT_EQ(third->size(), 6u);
  EXPECT_EQ((*third)[0], (Header{":status", "200"}));
  EXPECT_EQ((*third)[5].name, "set-cookie");
}

TEST(HeaderDecoderTest, ReadsWhatWeWrite) {
  std::string block;
  AppendHeader(":path", "/package.Service/Method", &block);
  AppendHeader("x-long", std::string(70000, 'v'), &block);
  HeaderDecoder decoder;
  const auto headers = decoder.Decode(block);
  ASSERT_OK(headers);
  EXPECT_THAT(*headers, ElementsAre(Header{":path", "/package.Service/Method"},
                                    Header{"x-long", std::string(70000, 'v')}));
}

TEST(HeaderDecoderTest, RefusesWhatIsNoHpack) {
  for (const char* bad : {
           "80",            // Index 0.
           "be",            // Index 62: the table is empty.
           "ff",            // A number that is cut short.
           "ffffffffffff",  // A number without end.
           "00",            // No name.
           "0003616263",    // No value.
           "007f",          // A length that is cut short.
           "3fe21f",        // A table larger than we allowed (4097 and more).
           "8820",          // A size update after a header.
       }) {
    HeaderDecoder decoder;
    EXPECT_FALSE(decoder.Decode(Hex(bad)).ok()) << bad;
  }
}

TEST(HeaderDecoderTest, RefusesAnEndlessList) {
  // A large literal in the table, named again and again: a few bytes that would become megabytes.
  std::string block = Hex("400161");
  block += Hex("7fa11e");  // Length 4000.
  block += std::string(4000, 'x');
  block += std::string(100, '\xbe');
  HeaderDecoder decoder;
  EXPECT_THAT(decoder.Decode(block), Fails(absl::StatusCode::kResourceExhausted, "bytes"));
}

}  // namespace
}  // namespace gantry::wire
