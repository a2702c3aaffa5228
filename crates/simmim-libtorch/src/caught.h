// Exceptions as messages, since none may cross into Rust.

#pragma once

#include <cstring>
#include <exception>

template <typename F>
char* caught(F&& run) {
  try {
    run();
    return nullptr;
  } catch (const std::exception& error) {
    return strdup(error.what());
  } catch (...) {
    return strdup("libtorch failed and does not say why");
  }
}
