# The explorer for hosting. Not verified: no test builds or runs this file.
#   docker build -t diffspace-explorer . && docker run -p 7860:7860 -e TOKEN=lecture diffspace-explorer
# then open http://localhost:7860/?token=lecture. Behind a proxy the header Host has to be passed on.
FROM python:3.12-slim
RUN pip install --no-cache-dir torch --index-url https://download.pytorch.org/whl/cpu
WORKDIR /app
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN pip install --no-cache-dir '.[explore]' && useradd --create-home explorer
USER explorer
ENV TOKEN=change-me PORT=7860
EXPOSE 7860
CMD ["sh", "-c", "exec diffspace explore --no-browser --host 0.0.0.0 --port $PORT --token $TOKEN"]
