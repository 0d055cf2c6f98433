/* The C ABI from C, with buffers and a stream of the caller on the stand-in of CUDA.
 *
 *     abi BUNDLE IMAGE
 */
#include <cnnx.h>
#include <cuda_runtime_api.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                                  \
  do {                                                                                    \
    if (!(condition)) {                                                                   \
      fprintf(stderr, "line %d: %s: %s\n", __LINE__, #condition, cnnx_last_error().text); \
      exit(1);                                                                            \
    }                                                                                     \
  } while (0)

/* Everything that can be NULL is refused by a status, and no call crashes. */
static void refuses_null(cnnx_classifier *net) {
  cnnx_guess guess;
  cnnx_image image = {NULL, 4, 4, 0, CNNX_RGB};
  size_t found;
  float logits[1];
  cnnx_classifier *none = net;
  CHECK(cnnx_open(NULL, NULL, &none) == CNNX_USAGE);
  CHECK(cnnx_open("x", NULL, NULL) == CNNX_USAGE);
  CHECK(cnnx_describe(NULL, NULL) == CNNX_USAGE);
  CHECK(cnnx_classify_file(net, NULL, 1, &guess, &found) == CNNX_USAGE);
  CHECK(cnnx_classify_image(net, &image, 1, &guess, &found) == CNNX_USAGE);
  CHECK(strcmp(cnnx_last_error().what, "the image has no pixels") == 0);
  CHECK(cnnx_run(net, NULL, 1, logits) == CNNX_USAGE);
  CHECK(cnnx_top(NULL, logits, 1, &guess, &found) == CNNX_USAGE);
  CHECK(cnnx_run_self_test(net, NULL) == CNNX_USAGE);
  CHECK(cnnx_class_name(net, 1u << 30) == NULL && cnnx_class_name(NULL, 0) == NULL);
  CHECK(cnnx_open("/nowhere", NULL, &none) == CNNX_REFUSED && none == NULL);
  cnnx_close(none);
}

int main(int count, char **arguments) {
  cnnx_options options = {0};
  cnnx_classifier *net = NULL;
  cnnx_description network;
  cnnx_self_test test;
  cnnx_guess by_file[5], by_step[5];
  size_t found = 0, steps = 0, images = 3, i;
  uint8_t pixels[24 * 20 * 3];
  cnnx_image image = {pixels, 24, 20, 0, CNNX_RGB};
  void *input, *device_input = NULL, *device_logits = NULL;
  float *logits, *again;
  cudaStream_t stream;

  CHECK(count == 3 && cnnx_abi_version() == CNNX_ABI_VERSION);
  options.runtime = "tensorrt";
  CHECK(cnnx_open(arguments[1], &options, &net) == CNNX_OK);
  CHECK(cnnx_describe(net, &network) == CNNX_OK && strcmp(network.runtime, "tensorrt 10.3.0") == 0);
  refuses_null(net);
  CHECK(cnnx_run_self_test(net, &test) == CNNX_OK && test.verdict == CNNX_PASSED && test.count == 6);
  CHECK(cnnx_classify_file(net, arguments[2], 5, by_file, &found) == CNNX_OK && found == 5);

  /* Three images, prepared into a buffer of the caller, first on the runtime's own buffers. */
  for (i = 0; i < sizeof pixels; ++i) pixels[i] = (uint8_t)(i * 7);
  input = malloc(images * network.image_bytes);
  for (i = 0; i < images; ++i) {
    pixels[i * 100] = 255;
    CHECK(cnnx_prepare(net, &image, (char *)input + i * network.image_bytes) == CNNX_OK);
  }
  logits = malloc(images * network.classes * sizeof *logits);
  again = malloc(images * network.classes * sizeof *again);
  CHECK(cnnx_run(net, input, images, logits) == CNNX_OK);

  /* Then on device memory and a stream of the caller: nothing is there until it synchronizes. */
  CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess);
  CHECK(cudaMalloc(&device_input, images * network.image_bytes) == cudaSuccess);
  CHECK(cudaMalloc(&device_logits, images * network.classes * sizeof *logits) == cudaSuccess);
  CHECK(cudaMemcpyAsync(device_input, input, images * network.image_bytes, cudaMemcpyHostToDevice, stream) ==
        cudaSuccess);
  CHECK(cnnx_enqueue(net, device_input, images, device_logits, stream) == CNNX_OK);
  CHECK(cudaMemcpyAsync(again, device_logits, images * network.classes * sizeof *logits,
                        cudaMemcpyDeviceToHost, stream) == cudaSuccess);
  again[0] = NAN;
  CHECK(isnan(again[0]));
  CHECK(cudaStreamSynchronize(stream) == cudaSuccess);
  CHECK(memcmp(logits, again, images * network.classes * sizeof *logits) == 0);
  CHECK(cnnx_enqueue(net, device_input, network.most_batch + 1, device_logits, stream) == CNNX_USAGE);
  CHECK(cnnx_enqueue(net, input, images, device_logits, stream) == CNNX_LACKS); /* not in device memory */

  /* The steps give what the whole gives. */
  CHECK(cnnx_classify_image(net, &image, 5, by_file, &found) == CNNX_OK && found == 5);
  CHECK(cnnx_top(net, logits + 2 * network.classes, 5, by_step, &steps) == CNNX_OK && steps == found);
  for (i = 0; i < found; ++i)
    CHECK(by_file[i].index == by_step[i].index && by_file[i].probability == by_step[i].probability);

  cudaFree(device_input), cudaFree(device_logits), cudaStreamDestroy(stream);
  free(input), free(logits), free(again);
  cnnx_close(net);
  puts("done");
  return 0;
}
