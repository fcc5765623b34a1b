"""Published behaviour of multitask systems, measured with the library's parts beside what was published.

Run: python -m benchmarks.published [--experiments experts clusters signs keywords] [--seeds 16]
     [--epochs 40] [--batch_size 250] [--picture docs/published.png]

experts   Two regression tasks of known correlation (Ma et al. 2018, section 3.2): experts with one gate and with a
          gate per task beside a shared bottom. Published: a gate per task is better than one gate for all.
clusters  Nine tasks in three planted clusters: does the mean attention between tasks show them? Published: attention
          between tasks finds their relations (Zhao et al. 2019).
signs     Two tasks that agree or oppose each other: is the signed weight between them of that sign?
keywords  A label is the presence of a word: does its task attend to that word (Zheng, Chen and Qiu 2018)?

All is a function of the seeds. Each experiment has a module of its name, `stacks` builds and trains the models of all
seeds at once, `tables` prints.
"""
