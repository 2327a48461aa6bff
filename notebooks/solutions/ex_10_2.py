def days(images_per_second):
    runs, iterations, batches = 60, 10_000, 10
    images = runs * iterations * batches * (10 + 6)  # a mixed run and its partner
    return images / images_per_second / 86_400
