"""What a report shows: charts as inline SVG, and the grid of images.

Here: modules that draw and know nothing of runs (`svg`, `scale`, `label_layout`, `scatter_svg`,
    `line_svg`, `over_time`, `heatmap_svg`, `png`), and modules that choose what is drawn from the
    view of a run (`scatters`, `curves`, `heatmaps`, `image_grid`).
Not here: words and key metrics (`view`), colours (`static/report.css`).
Imports: formatting, tfq_bench.api, view.
"""
