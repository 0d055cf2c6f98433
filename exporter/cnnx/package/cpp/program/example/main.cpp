#include <cnnx.h>

#include <cstdio>

int main(int count, char **arguments) {
  if (count != 3) {
    std::fprintf(stderr, "usage: example BUNDLE IMAGE\n");
    return CNNX_USAGE;
  }
  try {
    cnnx::Classifier net(arguments[1]);
    for (const cnnx::Guess &guess : net.classify(arguments[2])) {
      std::printf("%.4f  %s\n", guess.probability, guess.name);
    }
  } catch (const cnnx::Error &error) {
    std::fprintf(stderr, "%s\n", error.what());
    return error.status();
  }
  return 0;
}
